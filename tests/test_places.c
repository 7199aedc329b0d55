/* places - the pool of connections, without a thread: what no order of events may break. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>
#include "server/stats.h"
#include "wss/places.h"

enum { PLACES = 2 };

static const struct edge_limits limits = {
    .head_ms = 5000, .write_ms = 5000, .stuck_ms = 5000, .idle_ms = 5000, .connections = PLACES};

struct rig {
    struct places places;
    struct edge_stats stats;
    struct outqueue_pool queues;
    struct edge_listener listener;
    int epoll;
};

static unsigned closed;
static uint8_t input[CONN_INPUT_A_TURN];

static bool opened(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)c, (void)state, (void)turn;
    return true;
}

static bool heard(struct conn *c, void *state, uint8_t *bytes, size_t len,
                  const struct conn_turn *turn)
{
    (void)c, (void)state, (void)bytes, (void)len, (void)turn;
    return true;
}

static bool expired(struct conn *c, void *state, const struct conn_turn *turn)
{
    (void)c, (void)state, (void)turn;
    return true;
}

static void has_closed(void *state)
{
    (void)state;
    closed++;
}

static const struct edge_protocol protocol = {
    .opened = opened, .input = heard, .expired = expired, .closed = has_closed};

static void upgrade(void *arg, const struct edge_request *q, struct edge_response *r)
{
    (void)arg, (void)q;
    r->status = 101;
    r->protocol = &protocol;
}

static int setup(void **state)
{
    struct rig *g = calloc(1, sizeof *g);
    g->epoll = epoll_create1(EPOLL_CLOEXEC);
    g->listener = (struct edge_listener){.name = "test", .unix_path = "-", .handler = upgrade};
    assert_int_equal(places_open(&g->places, g->epoll, 0, PLACES), 0);
    outqueue_pool_init(&g->queues, 1 << 16, 1 << 20);
    struct conn_turn *turn = &g->places.turn;
    turn->limits = &limits;
    turn->stats = &g->stats;
    turn->pool = &g->queues;
    turn->gate = gate_new(PLACES + 1);
    turn->input = input;
    turn->now_ns = 1000000000;
    closed = 0;
    *state = g;
    return 0;
}

static int teardown(void **state)
{
    struct rig *g = *state;
    places_flush(&g->places);
    places_close(&g->places);
    outqueue_pool_close(&g->queues);
    gate_free(g->places.turn.gate);
    close(g->epoll);
    free(g);
    return 0;
}

/* Returns the client's end. */
static int connect_one(struct rig *g)
{
    static const struct endpoint none;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    places_add(&g->places, ends[0], &g->listener, &none);
    return ends[1];
}

/* One that speaks the protocol; its answer's head lies unread at the client. */
static int connect_protocol(struct rig *g, unsigned index)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    int client = connect_one(g);
    assert_int_equal(write(client, request, sizeof request - 1), sizeof request - 1);
    places_event(&g->places, index);
    places_flush(&g->places);
    assert_int_equal(g->places.pool[index].state, CONN_PROTOCOL);
    return client;
}

static bool is_cut(int client)
{
    char byte;
    return recv(client, &byte, 1, MSG_DONTWAIT) == 0;
}

/* Two that were to be flushed end in one turn, and two come: the places of those who ended are not
 * free before the turn ends, and one of the newcomers has to go. */
static void test_ended_in_the_dirty_list(void **state)
{
    struct rig *g = *state;
    int client[PLACES];
    for (unsigned i = 0; i < PLACES; i++)
        client[i] = connect_protocol(g, i);
    for (unsigned i = 0; i < PLACES; i++) {
        conn_set_deadline(&g->places.pool[i], UINT64_MAX); /* into the list */
        close(client[i]);                                  /* with unread bytes: a reset */
    }
    for (unsigned i = 0; i < PLACES; i++)
        places_event(&g->places, i);
    assert_int_equal(closed, PLACES);
    assert_int_equal(g->places.active, 0);

    int first = connect_one(g), second = connect_one(g);
    assert_int_equal(g->places.active, 1);
    assert_int_equal(count_read(&g->stats.refused), 1);
    assert_false(is_cut(first));
    assert_true(is_cut(second));
    places_flush(&g->places);
    assert_int_equal(closed, PLACES);
    close(second);

    second = connect_one(g); /* the next turn has room again */
    assert_int_equal(g->places.active, 2);
    assert_int_equal(count_read(&g->stats.refused), 1);
    close(first);
    close(second);
}

/* `closed` comes once, also for one that ends by its own decision and is flushed later. */
static void test_closed_comes_once(void **state)
{
    struct rig *g = *state;
    int client = connect_protocol(g, 0);
    conn_end(&g->places.pool[0], &g->places.turn);
    conn_end(&g->places.pool[0], &g->places.turn);
    assert_int_equal(closed, 0); /* not from there */
    places_flush(&g->places);
    assert_int_equal(closed, 1);
    close(client);
    places_event(&g->places, 0);
    assert_int_equal(g->places.active, 0);
    assert_int_equal(closed, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ended_in_the_dirty_list),
        TEST(test_closed_comes_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
