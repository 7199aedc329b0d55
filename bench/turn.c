#include "bench/turn.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "bench/udp.h"
#include "proto/wire.h"

enum {
    COOKIE = 0x2112A442,
    HEAD_LEN = 20,
    REQUEST_MAX = 64,
    /* Methods as request types; a success response has 0x0100 set. */
    ALLOCATE = 0x0003,
    CREATE_PERMISSION = 0x0008,
    CHANNEL_BIND = 0x0009,
    SUCCESS = 0x0100,
    ATTR_CHANNEL_NUMBER = 0x000C,
    ATTR_XOR_PEER_ADDRESS = 0x0012,
    ATTR_REQUESTED_TRANSPORT = 0x0019,
    TRIES = 8,
    WAIT_MS = 250,
};

void turn_write_head(uint8_t *at, size_t len)
{
    struct writer w = writer_of(at, TURN_HEAD_LEN);
    write_u16(&w, TURN_CHANNEL);
    write_u16(&w, (uint16_t)len);
}

static void write_peer(struct writer *w, uint16_t port)
{
    write_u16(w, ATTR_XOR_PEER_ADDRESS);
    write_u16(w, 8);
    write_u16(w, 0x0001); /* IPv4 */
    write_u16(w, (uint16_t)(port ^ COOKIE >> 16));
    write_u32(w, (uint32_t)UDP_LOOPBACK ^ (uint32_t)COOKIE);
}

static void write_attributes(struct writer *w, unsigned method, uint16_t peer_port)
{
    if (method == ALLOCATE) {
        write_u16(w, ATTR_REQUESTED_TRANSPORT);
        write_u16(w, 4);
        write_u32(w, 17u << 24); /* UDP */
        return;
    }
    if (method == CHANNEL_BIND) {
        write_u16(w, ATTR_CHANNEL_NUMBER);
        write_u16(w, 4);
        write_u32(w, (uint32_t)TURN_CHANNEL << 16);
    }
    write_peer(w, peer_port);
}

/* One request; the client's number and the method are its transaction id. Returns its length. */
static size_t write_request(uint8_t bytes[static REQUEST_MAX], unsigned method, unsigned client,
                            uint16_t peer_port)
{
    struct writer w = writer_of(bytes, REQUEST_MAX);
    write_u16(&w, (uint16_t)method);
    uint8_t *attributes_len = write_room(&w, 2);
    write_u32(&w, COOKIE);
    write_u32(&w, client);
    write_u64(&w, method);
    write_attributes(&w, method, peer_port);
    size_t len = written(&w);
    struct writer field = writer_of(attributes_len, 2);
    write_u16(&field, (uint16_t)(len - HEAD_LEN));
    return len;
}

/* True when `d` is the success response to the client's request. */
static bool is_success(const struct udp_datagram *d, unsigned method, unsigned client)
{
    struct reader r = reader_of(d->bytes, d->len);
    unsigned type = read_u16(&r);
    read_u16(&r);
    read_u32(&r);
    bool ours = read_u32(&r) == client && read_u64(&r) == method && !r.bad;
    if (ours && type != (method | SUCCESS)) {
        errno = EACCES;
        udp_die("TURN request refused");
    }
    return ours;
}

static void ask(int fd, struct udp_batch *b, const uint8_t *request, size_t len, unsigned client,
                uint16_t port)
{
    udp_lay_out(b, port, len, 1);
    memcpy(udp_at(b, len, 0), request, len);
    udp_source(b, 0, turn_client(client));
    udp_send(fd, b, 1);
}

/* The two batches of this module's exchanges. */
struct turn {
    int fd;
    uint16_t port, peer_port;
    struct udp_batch send;
    struct udp_arrivals arrivals;
};

static bool answered(struct turn *t, unsigned method, unsigned client)
{
    struct pollfd readable = {.fd = t->fd, .events = POLLIN};
    while (poll(&readable, 1, WAIT_MS) > 0) {
        udp_receive(t->fd, &t->arrivals);
        for (unsigned i = 0; i < t->arrivals.count; i++) {
            if (is_success(&t->arrivals.datagram[i], method, client))
                return true;
        }
    }
    return false;
}

static void exchange(struct turn *t, unsigned method, unsigned client)
{
    uint8_t request[REQUEST_MAX];
    size_t len = write_request(request, method, client, t->peer_port);
    for (unsigned try = 0; try < TRIES; try++) {
        ask(t->fd, &t->send, request, len, client, t->port);
        if (answered(t, method, client))
            return;
    }
    errno = ETIMEDOUT;
    udp_die("TURN request");
}

void turn_open(int fd, uint16_t port, uint16_t peer_port)
{
    struct turn *t = calloc(1, sizeof *t);
    if (!t)
        udp_die("memory");
    t->fd = fd;
    t->port = port;
    t->peer_port = peer_port;
    udp_lay_open(&t->arrivals);
    for (unsigned client = 0; client < TURN_CLIENTS; client++) {
        exchange(t, ALLOCATE, client);
        exchange(t, CREATE_PERMISSION, client);
        exchange(t, CHANNEL_BIND, client);
    }
    free(t);
}
