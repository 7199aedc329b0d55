#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "wss/admin.h"
#include "wss/metrics.h"

static const char type_text[] = "text/plain; charset=utf-8";
static const char type_json[] = "application/json";
static const char type_metrics[] = "text/plain; version=0.0.4; charset=utf-8";

const char *admin_probe_text(enum probe_state state)
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

struct admin_checks admin_check(const struct admin *a)
{
    return (struct admin_checks){
        .udp4 = prober_state(&a->prober, PROBE_UDP4),
        .udp6 = prober_state(&a->prober, PROBE_UDP6),
        .wss = prober_state(&a->prober, PROBE_WSS),
        .shards_turn = shards_turn(a),
        .draining = atomic_load_explicit(&a->draining, memory_order_relaxed),
    };
}

static bool probe_passes(enum probe_state state)
{
    return state == PROBE_OK || state == PROBE_OFF;
}

bool admin_checks_pass(const struct admin_checks *c)
{
    return c->shards_turn && probe_passes(c->udp4) && probe_passes(c->udp6) && probe_passes(c->wss);
}

const char *admin_state_text(const struct admin_checks *c)
{
    return c->draining ? "draining" : admin_checks_pass(c) ? "ready" : "not_ready";
}

bool admin_is_ready(const struct admin *a)
{
    struct admin_checks c = admin_check(a);
    return admin_checks_pass(&c) && !c.draining;
}

/* --- the pages: each returns its status and writes its body --- */

static int page_livez(FILE *out, struct admin *a)
{
    if (!shards_turn(a)) {
        fputs("stuck: a shard's loop does not turn\n", out);
        return 503;
    }
    fputs("ok\n", out);
    return 200;
}

static int page_readyz(FILE *out, struct admin *a)
{
    struct admin_checks c = admin_check(a);
    fprintf(out,
            "{\"status\":\"%s\",\"checks\":{\"udp4\":\"%s\",\"udp6\":\"%s\",\"wss\":\"%s\","
            "\"shards\":\"%s\"},"
            "\"allow_private\":%s}\n",
            admin_state_text(&c), admin_probe_text(c.udp4), admin_probe_text(c.udp6),
            admin_probe_text(c.wss), c.shards_turn ? "ok" : "stuck",
            a->private_allowed ? "true" : "false");
    return admin_checks_pass(&c) && !c.draining ? 200 : 503;
}

static int page_healthz(FILE *out, struct admin *a)
{
    struct admin_checks c = admin_check(a);
    if (c.draining) {
        fputs("draining\n", out);
        return 503;
    }
    if (admin_checks_pass(&c)) {
        fputs("ok\n", out);
        return 200;
    }
    if (!c.shards_turn)
        fputs("not ready: a shard's loop does not turn\n", out);
    else if (c.udp4 == PROBE_FAILED || c.udp6 == PROBE_FAILED)
        fprintf(out, "not ready: no STUN answer over %s\n",
                c.udp4 == PROBE_FAILED ? "IPv4" : "IPv6");
    else if (c.wss == PROBE_FAILED)
        fputs("not ready: no answer from the WSS listener\n", out);
    else
        fputs("not ready: starting\n", out);
    return 503;
}

static int page_metrics(FILE *out, struct admin *a)
{
    metrics_write(out, a);
    return 200;
}

struct page {
    const char *path, *content_type;
    int (*write)(FILE *out, struct admin *a);
};

static const struct page health_pages[] = {
    {"/healthz", type_text, page_healthz},
    {"/livez", type_text, page_livez},
    {"/readyz", type_json, page_readyz},
};
static const struct page metrics_page = {"/metrics", type_metrics, page_metrics};

static void page_answer(const struct page *page, struct admin *a, const struct http_request *q,
                        struct edge_response *response)
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

void admin_health(void *arg, const struct edge_request *request, struct edge_response *response)
{
    struct admin *a = arg;
    const struct http_request *q = request->http;
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

void admin_metrics(void *arg, const struct edge_request *request, struct edge_response *response)
{
    if (http_text_is(request->http->path, metrics_page.path))
        page_answer(&metrics_page, arg, request->http, response);
    else
        response->status = 404;
}

/* --- what the main thread leaves --- */

uint64_t admin_ask_reload(struct admin *a)
{
    return atomic_fetch_add(&a->reload_asked, 1) + 1;
}

void admin_reloading(struct admin *a)
{
    pthread_mutex_lock(&a->lock);
    a->reloading = true;
    a->reload_begun = atomic_load(&a->reload_asked);
    pthread_mutex_unlock(&a->lock);
}

void admin_reloaded(struct admin *a, bool ok, const char *error)
{
    pthread_mutex_lock(&a->lock);
    struct admin_reload *r = &a->reload;
    r->ok = ok;
    r->unix_s = (int64_t)time(NULL);
    if (ok)
        r->taken_unix_s = r->unix_s;
    r->sequence = a->reloading ? a->reload_begun : atomic_load(&a->reload_asked);
    a->reloading = false;
    snprintf(r->error, sizeof r->error, "%s", ok || !error ? "" : error);
    pthread_mutex_unlock(&a->lock);
}

void admin_last_reload(struct admin *a, struct admin_reload *ret)
{
    pthread_mutex_lock(&a->lock);
    *ret = a->reload;
    pthread_mutex_unlock(&a->lock);
}

void admin_certificates(struct admin *a, const struct tls *t)
{
    pthread_mutex_lock(&a->lock);
    a->certificate_count = t ? tls_count(t) : 0;
    for (unsigned i = 0; i < a->certificate_count; i++) {
        struct admin_certificate *c = &a->certificate[i];
        snprintf(c->name, sizeof c->name, "%s", tls_name(t, i));
        c->not_after_unix_s = (int64_t)tls_not_after(t, i);
    }
    pthread_mutex_unlock(&a->lock);
}

unsigned admin_read_certificates(struct admin *a,
                                 struct admin_certificate ret[static TLS_PAIRS_MAX])
{
    pthread_mutex_lock(&a->lock);
    unsigned count = a->certificate_count;
    memcpy(ret, a->certificate, count * sizeof *ret);
    pthread_mutex_unlock(&a->lock);
    return count;
}

int admin_start(struct admin *a)
{
    const struct probe_target target[PROBE_TARGETS] = {
        [PROBE_UDP4] = {.at = a->probe4, .how = PROBE_STUN},
        [PROBE_UDP6] = {.at = a->probe6, .how = PROBE_STUN},
        [PROBE_WSS] = a->probe_wss,
    };
    a->started_ns = edge_clock_ns();
    a->started_unix_s = (int64_t)time(NULL);
    admin_reloaded(a, true, NULL); /* the configuration of the start was taken */
    return prober_start(&a->prober, target);
}

void admin_stop(struct admin *a)
{
    prober_stop(&a->prober);
}
