/* ctl - what the commands of beaconctl share: asking the beacon, printing what it says, ending with
 * a code.
 *
 * One thread. Functions that return int return 0 or an exit code, and then have said why. */
#ifndef BEACON_CMD_CTL_H
#define BEACON_CMD_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include "cmd/client.h"
#include "cmd/token.h"

enum { CTL_USAGE = 2, CTL_DEGRADED = 3 };

struct ctl {
    struct client client;
    bool json;
    uint64_t limit;   /* rows in all; 0: no limit */
    const char *file; /* of gossip-key, or NULL */
    bool no_reload;   /* of gossip-key */
    char token[TOKEN_MAX];
};

/* Says it on stderr and returns `code`. */
int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* client_ask has failed with `code`. */
int ctl_unreachable(const struct ctl *c, int code);

/* The JSON of an answer that is good; its text, too, when `ret_text` is not NULL. `body` NULL:
 * GET. */
int ctl_ask(struct ctl *c, const char *path, const char *body, json_t **ret, char **ret_text);
/* Asks and prints: as it came with --json, else by `show`. */
int ctl_show(struct ctl *c, const char *path, void (*show)(FILE *out, const json_t *));
/* Commands: with --json what came, else `said`. */
int ctl_tell(struct ctl *c, const char *path, const char *body, const char *said);
/* Asks for a reload, and waits until it has ended. */
int ctl_reload(struct ctl *c);

#endif
