#include <inttypes.h>
#include <stdio.h>
#include "cmd/log.h"
#include "cmd/watch.h"

/* The counters worth a line, with what to do about them. */
static const struct {
    size_t offset; /* in struct lane_stats */
    const char *message, *hint;
} watched[] = {
    {offsetof(struct lane_stats, kernel_drops), "kernel dropped datagrams",
     "receive buffer full: raise net.core.rmem_max and receive-buffer, or add shards"},
    {offsetof(struct lane_stats, verdict[VERDICT_DROPPED_MAILBOX_FULL]), "mailbox full",
     "a shard is behind with registrations"},
    {offsetof(struct lane_stats, send_errors), "sends refused",
     "unreachable destinations or a full send queue"},
    {offsetof(struct lane_stats, receive_errors), "receive failed", "see the network interface"},
    {offsetof(struct lane_stats, verdict[VERDICT_DISCOVER_FULL]), "node table full",
     "raise max-nodes"},
    {offsetof(struct lane_stats, verdict[VERDICT_RELAY_STREAM_FULL]),
     "queue to the WebSocket thread full", "it is behind with frames"},
    {offsetof(struct lane_stats, verdict[VERDICT_GOSSIP_QUEUE_FULL]),
     "queue to the mesh thread full", "it is behind with gossip"},
    {offsetof(struct lane_stats, routes_refused), "no room for nodes of other beacons",
     "raise max-routes"},
};
enum { WATCHED = sizeof watched / sizeof *watched };
static_assert(WATCHED == sizeof((struct watch *)0)->seen[0] / sizeof(uint64_t), "a place for each");

static void lane_tick(uint64_t seen[static WATCHED], const struct lane *l, const char *shard)
{
    for (int k = 0; k < WATCHED; k++) {
        const char *stats = (const char *)&l->stats;
        uint64_t now = count_read((const counter *)(const void *)(stats + watched[k].offset));
        uint64_t more = now - seen[k];
        seen[k] = now;
        if (more > 0)
            log_line(LOG_WARN, "udp", watched[k].message, "shard=%s count=%" PRIu64 " hint=%s",
                     shard, more, log_quote(watched[k].hint));
    }
}

void watch_tick(struct watch *w, const struct server *s)
{
    for (unsigned i = 0; i < s->lane_count; i++) {
        char shard[16];
        snprintf(shard, sizeof shard, "%u", i);
        lane_tick(w->seen[i], s->lane[i], shard);
    }
    if (s->edge)
        lane_tick(w->seen[CONFIG_SHARDS_MAX], s->edge, "edge");
    if (s->mesh)
        lane_tick(w->seen[CONFIG_SHARDS_MAX + 1], s->mesh, "mesh");
}

bool watch_alive(const struct server *s, uint64_t now_ns, unsigned stuck_s)
{
    for (unsigned i = 0; i < s->lane_count; i++) {
        uint64_t at_ns = count_read(&s->lane[i]->stats.tick_ns);
        if (now_ns > at_ns && now_ns - at_ns > stuck_s * 1000000000ull)
            return false;
    }
    return true;
}
