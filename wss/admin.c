#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "wss/admin.h"
#include "wss/metrics.h"

static const char type_text[] = "text/plain; charset=utf-8";
static const char type_json[] = "application/json";
static const char type_metrics[] = "text/plain; version=0.0.4; charset=utf-8";

/* What stands between us and traffic. */
struct checks {
    enum probe_state udp4, udp6;
    bool shards_turn;
    bool draining;
};

static const char *probe_text(enum probe_state state)
{
    switch (state) {
    case PROBE_OFF:
        return "off";
    case PROBE_STARTING:
        return "starting";
    case PROBE_OK:
        return "ok";
    case PROBE_FAILED:
        break;
    }
    return "failed";
}

static bool shards_turn(const struct admin *a)
{
    uint64_t now_ns = edge_clock_ns();
    for (unsigned i = 0; i < a->server->lane_count; i++) {
        uint64_t tick_ns = count_read(&a->server->lane[i]->stats.tick_ns);
        if (tick_ns < a->started_ns)
            tick_ns = a->started_ns;
        /* It may have turned after we looked at the clock. */
        if (now_ns > tick_ns && now_ns - tick_ns > ADMIN_STUCK_SECONDS * UINT64_C(1000000000))
            return false;
    }
    return true;
}

static struct checks admin_check(const struct admin *a)
{
    return (struct checks){
        .udp4 = prober_state(&a->prober, 0),
        .udp6 = prober_state(&a->prober, 1),
        .shards_turn = shards_turn(a),
        .draining = atomic_load_explicit(&a->draining, memory_order_relaxed),
    };
}

static bool probe_passes(enum probe_state state)
{
    return state == PROBE_OK || state == PROBE_OFF;
}

static bool checks_pass(const struct checks *c)
{
    return c->shards_turn && probe_passes(c->udp4) && probe_passes(c->udp6);
}

bool admin_is_ready(const struct admin *a)
{
    struct checks c = admin_check(a);
    return checks_pass(&c) && !c.draining;
}

/* --- the pages: each returns its status and writes its body --- */

static int page_livez(FILE *out, const struct admin *a)
{
    if (!shards_turn(a)) {
        fputs("stuck: a shard's loop does not turn\n", out);
        return 503;
    }
    fputs("ok\n", out);
    return 200;
}

static int page_readyz(FILE *out, const struct admin *a)
{
    struct checks c = admin_check(a);
    bool ready = checks_pass(&c) && !c.draining;
    const char *status = c.draining ? "draining" : ready ? "ready" : "not_ready";
    fprintf(out,
            "{\"status\":\"%s\",\"checks\":{\"udp4\":\"%s\",\"udp6\":\"%s\",\"shards\":\"%s\"},"
            "\"allow_private\":%s}\n",
            status, probe_text(c.udp4), probe_text(c.udp6), c.shards_turn ? "ok" : "stuck",
            a->private_allowed ? "true" : "false");
    return ready ? 200 : 503;
}

static int page_healthz(FILE *out, const struct admin *a)
{
    struct checks c = admin_check(a);
    if (c.draining) {
        fputs("draining\n", out);
        return 503;
    }
    if (checks_pass(&c)) {
        fputs("ok\n", out);
        return 200;
    }
    if (!c.shards_turn)
        fputs("not ready: a shard's loop does not turn\n", out);
    else if (c.udp4 == PROBE_FAILED || c.udp6 == PROBE_FAILED)
        fprintf(out, "not ready: no STUN answer over %s\n",
                c.udp4 == PROBE_FAILED ? "IPv4" : "IPv6");
    else
        fputs("not ready: starting\n", out);
    return 503;
}

static int page_metrics(FILE *out, const struct admin *a)
{
    metrics_write(out, a);
    return 200;
}

struct page {
    const char *path, *content_type;
    int (*write)(FILE *out, const struct admin *a);
};

static const struct page health_pages[] = {
    {"/healthz", type_text, page_healthz},
    {"/livez", type_text, page_livez},
    {"/readyz", type_json, page_readyz},
};
static const struct page metrics_page = {"/metrics", type_metrics, page_metrics};

static void page_answer(const struct page *page, const struct admin *a,
                        const struct http_request *q, struct edge_response *response)
{
    if (q->method != HTTP_GET && q->method != HTTP_HEAD) {
        response->status = 405;
        response->allow = "GET, HEAD";
        return;
    }
    char *body = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&body, &len);
    int status = out ? page->write(out, a) : 500;
    if (out && fclose(out) != 0)
        status = 500; /* no memory for the whole page: a part of it would lie */
    if (status == 500) {
        free(body);
        response->status = status;
        return;
    }
    *response = (struct edge_response){
        .status = status, .content_type = page->content_type, .body = body, .body_len = len};
}

void admin_health(void *arg, const struct http_request *q, struct edge_response *response)
{
    const struct admin *a = arg;
    if (a->metrics_on_health && http_text_is(q->path, metrics_page.path)) {
        page_answer(&metrics_page, a, q, response);
        return;
    }
    for (size_t i = 0; i < sizeof health_pages / sizeof *health_pages; i++) {
        if (http_text_is(q->path, health_pages[i].path)) {
            page_answer(&health_pages[i], a, q, response);
            return;
        }
    }
    response->status = 404;
}

void admin_metrics(void *arg, const struct http_request *q, struct edge_response *response)
{
    if (http_text_is(q->path, metrics_page.path))
        page_answer(&metrics_page, arg, q, response);
    else
        response->status = 404;
}

int admin_start(struct admin *a)
{
    const struct endpoint at[PROBE_TARGETS] = {a->probe4, a->probe6};
    a->started_ns = edge_clock_ns();
    a->started_unix_s = (int64_t)time(NULL);
    return prober_start(&a->prober, at);
}

void admin_stop(struct admin *a)
{
    prober_stop(&a->prober);
}
