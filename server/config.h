/* config - every option of the server, in one table.
 *
 * The table (option_table) makes flags, environment, beacon.conf, the Pilot beacon's JSON file,
 * --help, --dump-config, the man pages and the shell completion. Pure: it parses text that others
 * read. A config is const once parsed. Errors name the place (file and line, variable or flag), the
 * option and the value. */
#ifndef BEACON_SERVER_CONFIG_H
#define BEACON_SERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "proto/endpoint.h"
#include "server/limit.h"

enum {
    CONFIG_TEXT_MAX = 1024,
    CONFIG_SHARDS_MAX = 64,
    CONFIG_WHITELIST_MAX = 256,
    CONFIG_CERTIFICATES_MAX = 8,
    CONFIG_ERROR_MAX = 512,
    CONFIG_VALUE_MAX = 16384, /* a whole whitelist as text fits */
    CONFIG_OPTIONS_MAX = 96,
    CONFIG_ORIGIN_MAX = 96,
};

enum io_choice { IO_AUTO, IO_URING, IO_MMSG };
enum private_choice { PRIVATE_AUTO, PRIVATE_YES, PRIVATE_NO };
enum registry_lookup { LOOKUP_NONE, LOOKUP_BINARY, LOOKUP_JSON };
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_LOGFMT, LOG_JSON };

struct whitelist {
    bool all; /* "*" or "all" */
    unsigned count;
    struct endpoint ip[CONFIG_WHITELIST_MAX]; /* port 0 */
};

/* Address blocks. */
enum { CONFIG_PREFIXES_MAX = 64 };
struct prefixes {
    unsigned count;
    struct {
        struct endpoint at; /* port 0 */
        unsigned bits;      /* of the family's own width: 0 to 32, 0 to 128 */
    } of[CONFIG_PREFIXES_MAX];
};
/* Is the address in one of them? The port does not matter; nothing is in no prefixes. */
bool prefixes_have(const struct prefixes *p, const struct endpoint *at);

/* Where the admin interface listens. */
struct admin_at {
    enum { ADMIN_OFF, ADMIN_TCP, ADMIN_UNIX } kind;
    struct endpoint tcp;
    char path[108]; /* as long as a unix address may be */
};

/* What a running beacon re-reads on SIGHUP. Lanes see it through one pointer, whole or not at all.
 */
struct rules {
    uint32_t node_ttl_s;
    uint32_t takeover_silence_s; /* an id stays with its address until silent so long */
    uint32_t grant_lifetime_s;   /* 0: any */
    enum private_choice allow_private;
    bool require_punch_token;
    bool strict_relay_source;
    struct whitelist punch_whitelist;
    struct rate relay_rate;        /* per source endpoint */
    struct rate relay_ip_rate;     /* per source address, IPv6 per /64 */
    struct rate reply_rate;        /* per source address; wider prefixes get multiples */
    struct rate reply_total;       /* all answers to unproven sources, per shard */
    struct rate punch_rate;        /* per source address */
    struct rate punch_pair_rate;   /* per requester and target */
    struct rate punch_victim_rate; /* per address named in commands */
    struct rate punch_total;       /* all punch commands, per shard */
    struct rate verify_rate;       /* grant signatures per source address */
    struct rate notify_rate;       /* per node */
    struct rate peer_rate;         /* per other beacon */
    uint32_t nodes_per_ipv4, nodes_per_ipv4_24, nodes_per_ipv6_64, nodes_per_ipv6_48;
    uint32_t nursery_percent; /* above this fill a new id must come twice; 0: never */
};

struct config {
    bool dev;
    char config_file[CONFIG_TEXT_MAX];
    struct endpoint addr;
    char advertise_addr[CONFIG_TEXT_MAX];
    enum io_choice io;
    uint32_t shards; /* 0: one a core */
    bool busy_poll;
    uint32_t max_nodes;
    uint64_t receive_buffer, send_buffer; /* bytes per socket */
    struct endpoint health, metrics;
    bool has_health, has_metrics;
    struct endpoint wss, wss_plain;
    bool has_wss, has_wss_plain;
    char tls_cert[CONFIG_TEXT_MAX], tls_key[CONFIG_TEXT_MAX]; /* comma-separated */
    struct prefixes proxies;
    uint32_t wss_sessions;
    uint32_t wss_per_ipv4, wss_per_ipv6_64;
    struct rate wss_handshakes, wss_handshakes_total;
    uint64_t wss_queue, wss_queue_total;
    bool wss_legacy_auth;
    bool first_use;
    char keys[CONFIG_TEXT_MAX];
    enum registry_lookup registry_lookup;
    struct admin_at admin;
    char admin_token[CONFIG_TEXT_MAX];
    uint32_t drain_time_s;
    enum log_level log_level;
    enum log_format log_format;
    uint32_t beacon_id;
    char registry[CONFIG_TEXT_MAX];
    char peers[CONFIG_TEXT_MAX], peers_file[CONFIG_TEXT_MAX], peers_dns[CONFIG_TEXT_MAX];
    char gossip_keys[CONFIG_TEXT_MAX];
    uint32_t max_routes, max_routes_each;
    bool strict_gossip;
    char registry_admin_token[CONFIG_TEXT_MAX];
    bool registry_tls;
    char registry_ca[CONFIG_TEXT_MAX];
    bool takeover;
    char takeover_socket[CONFIG_TEXT_MAX];
    struct rules rules;
    /* Where each option's value came from, by index in option_table; "" is the default. */
    char origin[CONFIG_OPTIONS_MAX][CONFIG_ORIGIN_MAX];
};

enum option_type {
    OPTION_BOOL,
    OPTION_INT,
    OPTION_SECONDS, /* 90, 90s, 10m, 1h */
    OPTION_SIZE,    /* 4194304, 64KiB, 8MiB, 1GiB */
    OPTION_RATE,    /* RATE or RATE/BURST per second; BURST defaults to the row's */
    OPTION_ENUM,    /* one of `choices` */
    OPTION_TEXT,
    OPTION_ENDPOINT, /* numeric host:port */
    OPTION_LISTENER, /* the same or empty: off */
    OPTION_IPS,      /* comma-separated addresses, or * */
    OPTION_PREFIXES, /* comma-separated addresses and blocks of them, 10.0.0.0/8 */
    OPTION_ADMIN,    /* host:port, unix:/path, or empty: off */
};

struct option {
    const char *name; /* long flag, config key; JSON also with '_' for '-' */
    const char *section;
    enum option_type type;
    size_t offset;  /* in struct config */
    size_t enabled; /* OPTION_LISTENER: of the bool that says whether there is one */
    const char *metavar;
    const char *fallback; /* default, as text */
    const char *choices;  /* OPTION_ENUM: "auto|uring|mmsg" in the order of the enum */
    uint64_t min, max;    /* OPTION_INT, _SECONDS, _SIZE, rate of _RATE */
    uint64_t scale;       /* OPTION_RATE: burst = rate * scale / 10 when not given (0: = rate) */
    bool reloadable, secret;
    bool not_in_file; /* flag and environment only */
    bool list;        /* comma-separated; JSON may give a list of strings */
    const char *help; /* one sentence, no full stop */
};

extern const struct option option_table[];
extern const unsigned option_count;

struct config_error {
    char text[CONFIG_ERROR_MAX]; /* "beacon.conf:12: relay-rate = fast: not a number", complete */
    bool usage; /* the command line itself is wrong: no such flag, no value, a stray argument */
};

/* Nodes may come over WebSocket. */
static inline bool config_has_sessions(const struct config *c)
{
    return c->has_wss || c->has_wss_plain;
}

/* There may be other beacons: named somewhere, or to be heard of. */
static inline bool config_has_mesh(const struct config *c)
{
    return c->peers[0] || c->peers_file[0] || c->peers_dns[0] || c->gossip_keys[0] ||
           (c->registry[0] && c->beacon_id);
}

/* All defaults. */
void config_init(struct config *c);

/* One option by name (with '-' or '_'). `origin` is e.g. "beacon.conf:12", "$BEACON_ADDR",
 * "--addr". False: `error` says why, `c` is unchanged. Unknown names get a "did you mean". */
bool config_set(struct config *c, const char *name, const char *value, const char *origin,
                struct config_error *error);

/* A whole file. `path` is used in messages. Text format, or JSON when the path ends in ".json" or
 * the text begins with '{'. False: `c` holds a part of the file and is of no use. */
bool config_read(struct config *c, const char *path, const char *text, size_t len,
                 struct config_error *error);

/* The environment: every BEACON_<OPTION>. An empty value counts as not set. A secret may stand in a
 * file instead, which BEACON_<SECRET>_FILE names: its first line is the value. Setting both is an
 * error. */
struct config_environment {
    char *const *variables; /* NULL-ended "K=V" list */
    /* Called once a BEACON_ name that is no option's, may be NULL: such a name is not refused,
     * since orchestrators inject some on their own. */
    void (*unknown)(const char *name);
    /* Reads the file's beginning, at most `capacity` bytes, for secrets. Returns NULL, or why not.
     */
    const char *(*read_file)(const char *path, char *text, size_t capacity, size_t *ret_len);
};
bool config_read_environment(struct config *c, const struct config_environment *e,
                             struct config_error *error);

/* Flags: -name value, --name value, --name=value, booleans without a value too. Stops at the first
 * error. Commands (--help, --version, --check-config, --dump-config, --print-...) are taken by the
 * caller before, see main in cmd/beacon.c. */
bool config_read_flags(struct config *c, int argc, char *const *argv, struct config_error *error);

/* The file to read, before anything else is: the last --config of the flags, else $BEACON_CONFIG,
 * else NULL. Borrows from its arguments. */
const char *config_find_file(int argc, char *const *argv, char *const *environment);

/* What no single option can know: ranges between options, --dev's defaults for options that nobody
 * set. Called last. */
bool config_finish(struct config *c, struct config_error *error);

/* Names of options that differ between the two and cannot change while running, comma-separated
 * into `names`. Returns how many. */
unsigned config_needs_restart(const struct config *running, const struct config *wanted,
                              char *names, size_t capacity);

/* Output, all made from the table. config_dump writes beacon.conf text with origins as comments;
 * secrets are masked. */
void config_dump(const struct config *c, FILE *out);
void config_help(FILE *out);       /* the options part of --help */
void config_man(FILE *out);        /* mdoc(7) list for beacon(8) and beacon.conf(5) */
void config_completion(FILE *out); /* bash completion, whole */

#endif
