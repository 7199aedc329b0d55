#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "cmd/log.h"
#include "cmd/say.h"
#include "cmd/version.h"

const char *endpoint_text(const struct endpoint *e)
{
    static _Thread_local char text[4][ENDPOINT_TEXT_MAX];
    static _Thread_local unsigned turn;
    return endpoint_format(e, text[turn++ % 4]);
}

/* What was found that is not as it was wanted: what it is, and what to do. */
static void say_warnings(const struct started *s)
{
    const struct shards_report *r = s->report;
    const struct config *c = s->config;
    if (!r->dual_stack && !endpoint_is_v4(&r->bound))
        log_line(LOG_WARN, "udp", "this host has no IPv6, serving IPv4 only", NULL);
    if (r->steer_error)
        log_line(LOG_WARN, "udp", "no steering, shards pass registrations on", "error=%s",
                 log_quote(strerror(r->steer_error)));
    if (r->receive_buffer < c->receive_buffer)
        log_line(LOG_WARN, "udp", "receive buffer smaller than asked for",
                 "granted=%" PRIu64 " wanted=%" PRIu64 " hint=%s", r->receive_buffer,
                 c->receive_buffer, log_quote("raise net.core.rmem_max or grant CAP_NET_ADMIN"));
    if (r->send_buffer < c->send_buffer)
        log_line(LOG_WARN, "udp", "send buffer smaller than asked for",
                 "granted=%" PRIu64 " wanted=%" PRIu64 " hint=%s", r->send_buffer, c->send_buffer,
                 log_quote("raise net.core.wmem_max or grant CAP_NET_ADMIN"));
    if (c->has_metrics && ip_scope(c->metrics.ip) != SCOPE_LOOPBACK)
        log_line(LOG_WARN, "metrics", "served without a token beyond this host", "hint=%s",
                 log_quote("let a firewall keep strangers out, or listen on 127.0.0.1"));
    if (c->rules.allow_private == PRIVATE_YES && !c->dev)
        log_line(LOG_WARN, "beacon", "allow-private: special-purpose addresses may register",
                 "hint=%s", log_quote("for labs and private networks only"));
    if (config_has_mesh(c) && !c->gossip_keys[0])
        log_line(LOG_WARN, "mesh", "gossip in the open: anybody can forge it", "hint=%s",
                 log_quote("set gossip-keys here and on the other beacons"));
    if (config_has_mesh(c) && !c->strict_gossip)
        log_line(LOG_WARN, "mesh", "strict-gossip is off: anybody can claim nodes", NULL);
    if (c->has_wss && !c->tls_cert[0])
        log_line(LOG_WARN, "tls", "self-made certificate: clients must not check it", NULL);
    if (c->first_use && !c->dev)
        log_line(LOG_WARN, "keys", "wss-first-use: whoever comes first owns an id", NULL);
}

void say_listeners(const struct started *s)
{
    const struct shards_report *r = s->report;
    const struct config *c = s->config;
    log_line(LOG_INFO, "udp", "listening",
             "addr=%s io=%s shards=%u dual_stack=%s busy_poll=%s max_nodes=%" PRIu32,
             endpoint_text(&r->bound), r->io, s->shards, r->dual_stack ? "yes" : "no",
             c->busy_poll ? "yes" : "no", c->max_nodes);
    for (unsigned i = 0; i < s->listener_count; i++) {
        const struct edge_listener *l = &s->listener[i];
        if (l->unix_path)
            log_line(LOG_INFO, l->name, "listening", "path=%s", log_quote(l->unix_path));
        else
            log_line(LOG_INFO, l->name, "listening", "addr=%s tls=%s", endpoint_text(&l->at),
                     l->tls ? "yes" : "no");
    }
    say_warnings(s);
}

static void probe_text(const struct endpoint *at, const char *family, char *text, size_t capacity)
{
    int64_t ns = at->port ? stun_probe(at, ADMIN_PROBE_WAIT_MS) : -EAFNOSUPPORT;
    if (ns >= 0)
        snprintf(text, capacity, "STUN %s ok (%.2f ms)", family, (double)ns / 1e6);
    else
        snprintf(text, capacity, "STUN %s %s", family,
                 at->port ? strerror((int)-ns) : "not served");
}

/* Where somebody on this host reaches a listener. */
static const char *local_text(const struct endpoint *at)
{
    static const uint8_t loop4[4] = {127, 0, 0, 1};
    struct endpoint local = endpoint_of(loop4, 4, at->port);
    return endpoint_text(endpoint_is_any(at) ? &local : at);
}

/* What to do with a listener: an address to paste, and the page that is worth a look. */
static void say_listener(const struct edge_listener *l)
{
    static const struct {
        const char *name, *scheme, *page;
    } pages[] = {{"health", "http", "readyz"},
                 {"metrics", "http", "metrics"},
                 {"wss", "ws", "v1/compat"},
                 {"wss-plain", "ws", "v1/compat"},
                 {"admin", "http", "  the status page"}};
    const char *scheme = "http", *page = "";
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(pages[i].name, l->name) == 0) {
            scheme = pages[i].scheme;
            page = pages[i].page;
        }
    if (l->unix_path)
        printf("  %-9s unix:%s\n", l->name, l->unix_path);
    else
        printf("  %-9s %s%s://%s/%s%s\n", l->name, scheme, l->tls ? "s" : "", local_text(&l->at),
               page, endpoint_is_any(&l->at) ? "  on every address" : "");
}

void say_dev(const struct started *s)
{
    char v4[96], v6[96];
    probe_text(&s->admin->probe4, "v4", v4, sizeof v4);
    probe_text(&s->admin->probe6, "v6", v6, sizeof v6);
    printf("\n  beacon %s (%s), for development: private addresses may register\n\n",
           beacon_version, beacon_revision);
    printf("  UDP       %s  %u shard%s, io %s\n", endpoint_text(&s->report->bound), s->shards,
           s->shards == 1 ? "" : "s", s->report->io);
    for (unsigned i = 0; i < s->listener_count; i++)
        say_listener(&s->listener[i]);
    printf("  probe     %s, %s, WSS %s\n", v4, v6,
           prober_state(&s->admin->prober, PROBE_WSS) == PROBE_OK    ? "ok"
           : prober_state(&s->admin->prober, PROBE_WSS) == PROBE_OFF ? "not served"
                                                                     : "failed");
    if (s->listener_count > 0)
        printf("\n  Next, in another terminal:\n    curl -s http://%s/%s | head -n 40\n",
               local_text(&s->listener[0].at), s->admin->metrics_on_health ? "metrics" : "readyz");
    printf("  Ctrl-C stops.\n\n");
    fflush(stdout);
}
