#include "server/options.h"

#include <stdarg.h>
#include <string.h>
#include <strings.h>

#define AT(field) .offset = offsetof(struct config, field)
#define LISTENER_AT(field)                                                                         \
    .offset = offsetof(struct config, field), .enabled = offsetof(struct config, has_##field)
#define RULE(field) .offset = offsetof(struct config, rules.field), .reloadable = true
#define RATE(field)                                                                                \
    .section = "limits", .type = OPTION_RATE, .metavar = "rate", .max = RATE_MAX, RULE(field)
#define QUOTA(field)                                                                               \
    .section = "limits", .type = OPTION_INT, .metavar = "count", .min = 0, .max = NODES_MAX,       \
    RULE(field)

#define WSS_RATE(field)                                                                            \
    .section = "wss", .type = OPTION_RATE, .metavar = "rate", .max = RATE_MAX, AT(field)
#define WSS_COUNT(field)                                                                           \
    .section = "wss", .type = OPTION_INT, .metavar = "count", .min = 1, .max = SESSIONS_MAX,       \
    AT(field)

#define SECRET_HINT "; set it in the environment or the file, since anyone can see arguments"

enum {
    NODES_MAX = 100000000,
    RATE_MAX = 1000000000, /* a nanosecond each: the limiter cannot divide finer */
    BUFFER_MIN = 4096,
    BUFFER_MAX = 1 << 30,
    SESSIONS_MAX = 1000000,
    QUEUE_MIN = 65600, /* a largest message and its frame's head */
    DAY = 86400,
};
#define QUEUE_TOTAL_MAX ((uint64_t)1 << 40)

const struct option option_table[] = {
    {"config", "server", OPTION_TEXT, AT(config_file), .metavar = "file", .fallback = "",
     .not_in_file = true, .help = "Read this configuration file, beacon.conf text or JSON"},
    {"dev", "server", OPTION_BOOL, AT(dev), .fallback = "false", .not_in_file = true,
     .help = "Defaults for trying it out: health and metrics on :8080, wss on :8443 with a "
             "certificate made at start, wss-first-use, admin on 127.0.0.1:8081, private addresses "
             "allowed, a drain of one second"},
    {"addr", "server", OPTION_ENDPOINT, AT(addr), .metavar = "address", .fallback = ":9001",
     .help = "UDP address and port to serve; without a host, every address of both families"},
    {"advertise-addr", "server", OPTION_TEXT, AT(advertise_addr), .metavar = "address",
     .fallback = "",
     .help = "Address under which others reach this beacon, if not the one served; a global one "
             "makes allow-private default to no"},
    {"io", "server", OPTION_ENUM, AT(io), .metavar = "engine", .fallback = "auto",
     .choices = "auto|uring|mmsg",
     .help = "How datagrams are moved: io_uring, or recvmmsg and sendmmsg; auto tries the first"},
    {"shards", "server", OPTION_INT, AT(shards), .metavar = "count", .fallback = "0", .min = 0,
     .max = CONFIG_SHARDS_MAX, .help = "Threads that serve datagrams; 0 is one a core"},
    {"busy-poll", "server", OPTION_BOOL, AT(busy_poll), .fallback = "false",
     .help = "Spin instead of sleeping between datagrams: less latency for a whole core a shard"},
    {"max-nodes", "server", OPTION_INT, AT(max_nodes), .metavar = "count", .fallback = "500000",
     .min = 1, .max = NODES_MAX, .help = "Nodes that fit the table; its memory is taken at start"},
    {"node-ttl", "server", OPTION_SECONDS, RULE(node_ttl_s), .metavar = "time", .fallback = "600s",
     .min = 10, .max = DAY, .help = "A node that was silent for so long is forgotten"},
    {"receive-buffer", "server", OPTION_SIZE, AT(receive_buffer), .metavar = "size",
     .fallback = "16MiB", .min = BUFFER_MIN, .max = BUFFER_MAX,
     .help = "Receive buffer asked of the kernel for each socket"},
    {"send-buffer", "server", OPTION_SIZE, AT(send_buffer), .metavar = "size", .fallback = "16MiB",
     .min = BUFFER_MIN, .max = BUFFER_MAX,
     .help = "Send buffer asked of the kernel for each socket"},
    {"takeover-silence", "server", OPTION_SECONDS, RULE(takeover_silence_s), .metavar = "time",
     .fallback = "90s", .min = 0, .max = DAY,
     .help = "Another address gets a node's id only after so long a silence; 0 is at once"},
    {"allow-private", "server", OPTION_ENUM, RULE(allow_private), .metavar = "choice",
     .fallback = "auto", .choices = "auto|yes|no",
     .help = "Serve nodes at private addresses; auto does so where the beacon's own is private"},
    {"drain-time", "server", OPTION_SECONDS, AT(drain_time_s), .metavar = "time", .fallback = "10s",
     .min = 0, .max = 3600,
     .help = "How long to serve on after TERM, reported as not ready, before stopping"},
    {"takeover-socket", "server", OPTION_TEXT, AT(takeover_socket), .metavar = "path",
     .fallback = "",
     .help = "Unix socket where a successor may ask for sockets and table, see --takeover"},
    {"takeover", "server", OPTION_BOOL, AT(takeover), .fallback = "false", .not_in_file = true,
     .help = "Take sockets and table over from the beacon at takeover-socket, which then ends; "
             "without one there, start as usual"},

    {"punch-whitelist", "punch", OPTION_IPS, RULE(punch_whitelist), .metavar = "addresses",
     .fallback = "", .list = true,
     .help = "Sources free of the punch rates, separated by commas; * is everyone"},
    {"require-punch-token", "punch", OPTION_BOOL, RULE(require_punch_token), .fallback = "false",
     .help = "Refuse punch requests without a grant that the target signed"},
    {"grant-lifetime", "punch", OPTION_SECONDS, RULE(grant_lifetime_s), .metavar = "time",
     .fallback = "1d", .min = 0, .max = 3650 * DAY,
     .help = "Refuse grants that expire later than so far ahead; 0 is any"},

    {"relay-rate", RATE(relay_rate), .fallback = "4000/4000",
     .help = "Relayed datagrams a second for each source address and port"},
    {"relay-ip-rate", RATE(relay_ip_rate), .fallback = "40000/40000",
     .help = "Relayed datagrams a second for each source address, IPv6 for each /64"},
    {"reply-rate", RATE(reply_rate), .fallback = "20/50", .scale = 25,
     .help = "Answers a second to each source address; wider prefixes have multiples of it"},
    {"reply-total", RATE(reply_total), .fallback = "50000/50000",
     .help = "Answers a second to all sources that have not proven their address, for each shard"},
    {"punch-rate", RATE(punch_rate), .fallback = "2/10", .scale = 50,
     .help = "Punch requests a second for each source address"},
    {"punch-pair-rate", RATE(punch_pair_rate), .fallback = "2/4", .scale = 20,
     .help = "Punch requests a second for each requester and target"},
    {"punch-victim-rate", RATE(punch_victim_rate), .fallback = "5/10", .scale = 20,
     .help = "Punch commands a second that name the same address"},
    {"punch-total", RATE(punch_total), .fallback = "10000/10000",
     .help = "Punch commands a second in all, for each shard"},
    {"verify-rate", RATE(verify_rate), .fallback = "10/40", .scale = 40,
     .help = "Grant signatures verified a second for each source address"},
    {"notify-rate", RATE(notify_rate), .fallback = "1/1",
     .help = "Notifications a second to each node"},
    {"nodes-per-ipv4", QUOTA(nodes_per_ipv4), .fallback = "1024",
     .help = "Nodes at one IPv4 address, in each shard; 0 is no limit"},
    {"nodes-per-ipv4-24", QUOTA(nodes_per_ipv4_24), .fallback = "4096",
     .help = "Nodes in one IPv4 /24, in each shard; 0 is no limit"},
    {"nodes-per-ipv6-64", QUOTA(nodes_per_ipv6_64), .fallback = "64",
     .help = "Nodes in one IPv6 /64, in each shard; 0 is no limit"},
    {"nodes-per-ipv6-48", QUOTA(nodes_per_ipv6_48), .fallback = "512",
     .help = "Nodes in one IPv6 /48, in each shard; 0 is no limit"},
    {"nursery-percent", "limits", OPTION_INT, RULE(nursery_percent), .metavar = "percent",
     .fallback = "70", .min = 0, .max = 100,
     .help = "When the table is fuller than this a new node must come twice; 0 is never"},
    {"strict-relay-source", "limits", OPTION_BOOL, RULE(strict_relay_source), .fallback = "false",
     .help = "Relay only what comes from the address where the sending node is registered"},

    {"wss", "wss", OPTION_LISTENER, LISTENER_AT(wss), .metavar = "address", .fallback = "",
     .help = "TCP address for nodes whose UDP is blocked: WebSocket over TLS, usually :443; empty "
             "is off"},
    {"wss-plain", "wss", OPTION_LISTENER, LISTENER_AT(wss_plain), .metavar = "address",
     .fallback = "",
     .help = "The same without TLS, for behind a proxy that ends TLS; empty is off"},
    {"tls-cert", "wss", OPTION_TEXT, AT(tls_cert), .metavar = "files", .fallback = "", .list = true,
     .help = "Certificate chains (PEM, leaf first), separated by commas and chosen by SNI; the "
             "files are read again on HUP and when they change, other names need a restart"},
    {"tls-key", "wss", OPTION_TEXT, AT(tls_key), .metavar = "files", .fallback = "", .list = true,
     .help = "Private keys (PEM) of tls-cert, in the same order; read again like those"},
    {"proxy-protocol-from", "wss", OPTION_PREFIXES, AT(proxies), .metavar = "prefixes",
     .fallback = "", .list = true,
     .help = "Proxies, as addresses or prefixes separated by commas, that must begin each "
             "connection to wss and wss-plain with a PROXY header (version 1 or 2)"},
    {"wss-sessions", WSS_COUNT(wss_sessions), .fallback = "16384",
     .help = "Nodes that may be connected over WebSocket"},
    {"wss-per-ipv4", WSS_COUNT(wss_per_ipv4), .fallback = "64",
     .help = "Connections of one IPv4 address"},
    {"wss-per-ipv6-64", WSS_COUNT(wss_per_ipv6_64), .fallback = "16",
     .help = "Connections of one IPv6 /64"},
    {"wss-handshake-rate", WSS_RATE(wss_handshakes), .fallback = "5/20", .scale = 40,
     .help = "TLS handshakes a second for each IPv4 address and IPv6 /64"},
    {"wss-handshake-total", WSS_RATE(wss_handshakes_total), .fallback = "1500/1500",
     .help = "TLS handshakes a second in all"},
    {"wss-queue", "wss", OPTION_SIZE, AT(wss_queue), .metavar = "size", .fallback = "256KiB",
     .min = QUEUE_MIN, .max = BUFFER_MAX,
     .help = "Bytes that may wait for one slow reader; more drops its oldest"},
    {"wss-queue-total", "wss", OPTION_SIZE, AT(wss_queue_total), .metavar = "size",
     .fallback = "64MiB", .min = QUEUE_MIN, .max = QUEUE_TOTAL_MAX,
     .help = "Bytes that may wait for all slow readers"},
    {"wss-legacy-auth", "wss", OPTION_BOOL, AT(wss_legacy_auth), .fallback = "true",
     .help = "Take the signatures of Pilot daemons, which do not say which beacon asked"},
    {"wss-first-use", "wss", OPTION_BOOL, AT(first_use), .fallback = "false",
     .help = "Trust the key that an unknown node brings, and keep to it"},
    {"keys", "wss", OPTION_TEXT, AT(keys), .metavar = "file", .fallback = "",
     .help = "File of node ids and their keys; read again on HUP, another name needs a restart"},
    {"registry-lookup", "wss", OPTION_ENUM, AT(registry_lookup), .metavar = "dialect",
     .fallback = "none", .choices = "none|binary|json",
     .help = "Ask the registry for the keys of nodes, in this dialect"},

    {"health", "http", OPTION_LISTENER, LISTENER_AT(health), .metavar = "address", .fallback = "",
     .help = "HTTP address for /healthz, /livez and /readyz; empty is off"},
    {"metrics", "http", OPTION_LISTENER, LISTENER_AT(metrics), .metavar = "address", .fallback = "",
     .help =
         "HTTP address for /metrics; if empty, a health address on loopback or of --dev serves it"},
    {"admin", "http", OPTION_ADMIN, AT(admin), .metavar = "address", .fallback = "",
     .help = "Address or unix:/path of the admin interface (status page, events, commands); beyond "
             "loopback it needs admin-token and tls-cert; empty is off"},
    {"admin-token", "http", OPTION_TEXT, AT(admin_token), .metavar = "token", .fallback = "",
     .secret = true,
     .help = "Bearer token that the admin interface asks for, 16 to 200 characters" SECRET_HINT},

    {"log-level", "log", OPTION_ENUM, AT(log_level), .metavar = "level", .fallback = "info",
     .choices = "debug|info|warn|error", .reloadable = true,
     .help = "Write lines of this level and above; warning is the same as warn"},
    {"log-format", "log", OPTION_ENUM, AT(log_format), .metavar = "format", .fallback = "text",
     .choices = "text|logfmt|json", .reloadable = true, .help = "How lines are written to stderr"},

    {"beacon-id", "mesh", OPTION_INT, AT(beacon_id), .metavar = "id", .fallback = "0", .min = 0,
     .max = UINT32_MAX,
     .help = "Id of this beacon among all others, which nodes sign to authenticate over wss; 0 is "
             "standalone"},
    {"peers", "mesh", OPTION_TEXT, AT(peers), .metavar = "addresses", .fallback = "", .list = true,
     .help = "Other beacons, host:port separated by commas; pilot:host:port is an original one"},
    {"peers-file", "mesh", OPTION_TEXT, AT(peers_file), .metavar = "file", .fallback = "",
     .help = "File of other beacons, one a line as in peers; taken anew when it changes"},
    {"peers-dns", "mesh", OPTION_TEXT, AT(peers_dns), .metavar = "name", .fallback = "",
     .help = "Name whose SRV records for _beacon._udp, else its addresses, are other beacons"},
    {"gossip-keys", "mesh", OPTION_TEXT, AT(gossip_keys), .metavar = "file", .fallback = "",
     .help = "File of the keys that seal gossip, read again on HUP; without it beacons talk in the "
             "open, as original ones do"},
    {"max-routes", "mesh", OPTION_INT, AT(max_routes), .metavar = "count", .fallback = "1000000",
     .min = 1, .max = NODES_MAX,
     .help = "Nodes of other beacons that fit the table; its memory is taken where there are "
             "others"},
    {"max-routes-each", "mesh", OPTION_INT, AT(max_routes_each), .metavar = "count",
     .fallback = "0", .min = 0, .max = NODES_MAX,
     .help = "Nodes that one other beacon may claim; 0 is half of max-routes"},
    {"peer-rate", "mesh", OPTION_RATE, RULE(peer_rate), .metavar = "rate", .max = RATE_MAX,
     .fallback = "500000/500000",
     .help = "Relayed datagrams a second from each other beacon, for each shard"},
    {"strict-gossip", "mesh", OPTION_BOOL, AT(strict_gossip), .fallback = "true",
     .help = "Take the open gossip of original beacons only from addresses that are named as "
             "peers"},
    {"registry", "mesh", OPTION_TEXT, AT(registry), .metavar = "address", .fallback = "",
     .help = "TCP address of the registry, host:port: it is told of this beacon and asked for "
             "others if there is a beacon-id, and for keys by registry-lookup"},
    {"registry-admin-token", "mesh", OPTION_TEXT, AT(registry_admin_token), .metavar = "token",
     .fallback = "", .secret = true, .help = "Token for the registry" SECRET_HINT},
    {"registry-tls", "mesh", OPTION_BOOL, AT(registry_tls), .fallback = "false",
     .help = "Speak TLS to the registry when registering, and check its certificate"},
    {"registry-ca", "mesh", OPTION_TEXT, AT(registry_ca), .metavar = "file", .fallback = "",
     .help = "Authorities that may sign the registry's certificate; empty are the host's"},
};
const unsigned option_count = sizeof option_table / sizeof option_table[0];
static_assert(sizeof option_table / sizeof option_table[0] <= CONFIG_OPTIONS_MAX,
              "each option has a row in config.origin");

const char *const command_names[] = {
    "help", "version", "check-config", "dump-config", "print-man", "print-completion", NULL,
};

static bool same_name(const char *known, const char *name)
{
    for (; *known != '\0' && *name != '\0'; known++, name++)
        if (*known != (*name == '_' ? '-' : *name))
            return false;
    return *known == *name;
}

const struct option *option_find(const char *name)
{
    for (unsigned i = 0; i < option_count; i++)
        if (same_name(option_table[i].name, name))
            return &option_table[i];
    return NULL;
}

unsigned option_index(const struct option *o)
{
    return (unsigned)(o - option_table);
}

bool option_is_set(const struct config *c, const char *name)
{
    return c->origin[option_index(option_find(name))][0] != '\0';
}

/* --- guessing what was meant --- */

enum { GUESS_NAME_MAX = 32, GUESS_EDITS_MAX = 2 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Levenshtein's distance, by rows. Names longer than any of ours are far from all. */
static unsigned edits(const char *a, const char *b)
{
    size_t a_len = strlen(a), b_len = strlen(b);
    unsigned row[GUESS_NAME_MAX + 1];

    if (a_len > GUESS_NAME_MAX || b_len > GUESS_NAME_MAX)
        return UINT32_MAX;
    for (unsigned j = 0; j <= b_len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_len; j++) {
            char from = a[i - 1] == '_' ? '-' : a[i - 1];
            unsigned swap = diagonal + (from == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = least(swap, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b_len];
}

struct guess {
    const char *name;
    unsigned edits;
};

static void guess_offer(struct guess *g, const char *wrong, const char *known)
{
    unsigned n = edits(wrong, known);

    /* What is all typing errors is no guess: "x" is two edits from "io". */
    if (n < g->edits && n < strlen(known))
        *g = (struct guess){known, n};
}

const char *option_guess(const char *name, bool with_commands)
{
    struct guess g = {NULL, GUESS_EDITS_MAX + 1};

    for (unsigned i = 0; i < option_count; i++)
        guess_offer(&g, name, option_table[i].name);
    for (unsigned i = 0; with_commands && command_names[i] != NULL; i++)
        guess_offer(&g, name, command_names[i]);
    return g.name;
}

const char *section_guess(const char *name)
{
    struct guess g = {NULL, GUESS_EDITS_MAX + 1};

    for (unsigned i = 0; i < option_count; i++)
        guess_offer(&g, name, option_table[i].section);
    return g.name;
}

bool section_exists(const char *name)
{
    for (unsigned i = 0; i < option_count; i++)
        if (strcmp(option_table[i].section, name) == 0)
            return true;
    return false;
}

/* --- messages --- */

static void make_harmless(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}

const char *text_show(const char *value, char shown[static OPTION_SHOWN_MAX])
{
    static const char more[] = "...";
    size_t len = strlen(value);

    if (len == 0)
        return strcpy(shown, "\"\"");
    if (len >= OPTION_SHOWN_MAX) {
        len = OPTION_SHOWN_MAX - sizeof more;
        while (len > 0 && ((unsigned char)value[len] & 0xc0) == 0x80)
            len--;
        memcpy(shown, value, len);
        memcpy(shown + len, more, sizeof more);
    } else {
        memcpy(shown, value, len + 1);
    }
    make_harmless(shown);
    return shown;
}

bool config_fail(struct config_error *error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    make_harmless(error->text);
    return false;
}

bool config_fail_unknown(struct config_error *error, const char *origin, const char *name)
{
    char shown[OPTION_SHOWN_MAX];
    const char *guess = option_guess(name, false);

    text_show(name, shown);
    if (guess == NULL)
        return config_fail(error, "%s: unknown option %s", origin, shown);
    return config_fail(error, "%s: unknown option %s (did you mean %s?)", origin, shown, guess);
}
