/* say - what a start found out, told to people: log lines, and the box that --dev prints. */
#ifndef BEACON_CMD_SAY_H
#define BEACON_CMD_SAY_H

#include "server/config.h"
#include "shard/shard.h"
#include "wss/admin.h"

struct started {
    const struct config *config;
    const struct shards_report *report;
    unsigned shards;
    const struct edge_listener *listener;
    unsigned listener_count;
    const struct admin *admin;
};

/* What is listened on, and warnings about what is not as it was wanted. */
void say_listeners(const struct started *s);
/* The box of --dev: what is there, whether it answers, what to try next. Asks itself by STUN. */
void say_dev(const struct started *s);

/* An endpoint as text, valid until the 4th next call on this thread. */
const char *endpoint_text(const struct endpoint *e);

#endif
