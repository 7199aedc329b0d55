#include <stdlib.h>
#include "shard/sender.h"
#include "shard/shard.h"

struct shards_sender {
    const struct server *server;
    struct io_sender sender;
    uint64_t lowered_ns; /* when segment_max was seen lowered; 0: it is not */
    struct group group;
};

void outbox_send(struct io_sender *sender, struct group *group, const struct server *server,
                 struct outbox *out)
{
    struct lane_stats *stats = sender->stats;
    if (out->count == 0)
        return;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < out->count; i++)
        bytes += out->out[i].len;
    group_build(group, out, &server->service, sender->sockets.family, sender->segment_max);
    io_send(sender, &group->messages);
    count_add(&stats->sent, out->count);
    count_add(&stats->sent_bytes, bytes);
    count_add(&stats->send_messages, group->messages.count);
    out->count = 0;
}

struct shards_sender *sender_new(const struct io_sockets *sockets, struct lane *lane)
{
    struct shards_sender *sender = calloc(1, sizeof *sender);
    if (!sender)
        return NULL;
    sender->server = lane->server;
    sender->sender = (struct io_sender){*sockets, &lane->stats, SEGMENT_MAX_BYTES};
    return sender;
}

/* As a shard does once a second: large segments are tried again after a while. */
static void segments_retry(struct shards_sender *s)
{
    if (s->sender.segment_max == SEGMENT_MAX_BYTES)
        return;
    uint64_t now_ns = clock_ns();
    if (s->lowered_ns == 0)
        s->lowered_ns = now_ns;
    if (now_ns - s->lowered_ns < SEGMENT_RETRY_S * 1000000000ull)
        return;
    s->sender.segment_max = SEGMENT_MAX_BYTES;
    s->lowered_ns = 0;
}

void shards_sender_send(struct shards_sender *sender, struct outbox *out)
{
    segments_retry(sender);
    outbox_send(&sender->sender, &sender->group, sender->server, out);
}

void shards_sender_free(struct shards_sender *sender)
{
    free(sender);
}
