#include "server/options.h"

#include <string.h>

enum {
    TOKEN_MIN = 16,
    TOKEN_MAX = 200,
};

static const char *origin_of(const struct config *c, const char *name)
{
    return c->origin[option_index(option_find(name))];
}

static bool fail_at(const struct config *c, const char *name, struct config_error *error,
                    const char *why)
{
    return config_fail(error, "%s: %s: %s", origin_of(c, name), name, why);
}

/* Of two options that do not go together, one that somebody set: a default has no place to name. */
static const char *set_one(const struct config *c, const char *first, const char *second)
{
    return option_is_set(c, first) ? first : second;
}

/* --- defaults that other options bring with them --- */

static void default_from(struct config *c, const char *origin, const char *name, const char *value)
{
    struct config_error error;

    if (!option_is_set(c, name)) {
        bool good = config_set(c, name, value, origin, &error);
        assert(good);
        (void)good;
    }
}

/* Whether the world reaches this beacon at a global address, whatever the interface has. */
static bool advertises_global(const struct config *c)
{
    struct endpoint e;

    return (endpoint_parse(c->advertise_addr, &e) || endpoint_parse_ip(c->advertise_addr, &e)) &&
           ip_scope(e.ip) == SCOPE_GLOBAL;
}

static void set_defaults(struct config *c)
{
    static const char *const dev[][2] = {
        {"health", ":8080"}, {"allow-private", "yes"},  {"drain-time", "1s"},
        {"wss", ":8443"},    {"wss-first-use", "true"}, {"admin", "127.0.0.1:8081"},
    };

    for (unsigned i = 0; c->dev && i < sizeof dev / sizeof dev[0]; i++)
        default_from(c, "--dev", dev[i][0], dev[i][1]);
    if (advertises_global(c))
        default_from(c, "advertise-addr", "allow-private", "no");
}

/* --- what does not go together --- */

static bool fit_takeover(struct config *c, struct config_error *error)
{
    const struct option *o = option_find("takeover-silence");
    char silence[32], ttl[32];

    seconds_format(c->rules.takeover_silence_s, silence, sizeof silence);
    seconds_format(c->rules.node_ttl_s, ttl, sizeof ttl);
    if (c->rules.takeover_silence_s <= c->rules.node_ttl_s)
        return true;
    if (option_is_set(c, o->name))
        return config_fail(error, "%s: %s = %s: longer than node-ttl (%s)", origin_of(c, o->name),
                           o->name, silence, ttl);
    /* Only node-ttl was set, to less than the other's default. */
    return config_set(c, o->name, ttl, "node-ttl", error);
}

struct listener {
    const char *name;
    const struct endpoint *at; /* NULL: off */
};

/* Would the kernel refuse the second? The IPv6 wildcard takes IPv4 too. Port 0 is any, so two of
 * them differ. */
static bool overlaps(const struct endpoint *a, const struct endpoint *b)
{
    bool one_family = endpoint_is_v4(a) == endpoint_is_v4(b);

    if (a->port != b->port || a->port == 0)
        return false;
    return endpoint_same_ip(a, b) || (endpoint_is_any(a) && (one_family || !endpoint_is_v4(a))) ||
           (endpoint_is_any(b) && (one_family || !endpoint_is_v4(b)));
}

static bool check_listeners(const struct config *c, struct config_error *error)
{
    const struct listener listeners[] = {
        {"health", c->has_health ? &c->health : NULL},
        {"metrics", c->has_metrics ? &c->metrics : NULL},
        {"wss", c->has_wss ? &c->wss : NULL},
        {"wss-plain", c->has_wss_plain ? &c->wss_plain : NULL},
        {"admin", c->admin.kind == ADMIN_TCP ? &c->admin.tcp : NULL},
    };

    for (unsigned i = 0; i < sizeof listeners / sizeof listeners[0]; i++)
        for (unsigned k = 0; k < i && listeners[i].at != NULL; k++)
            if (listeners[k].at != NULL && overlaps(listeners[i].at, listeners[k].at))
                return config_fail(error, "%s: %s: %s listens there already",
                                   origin_of(c, listeners[i].name), listeners[i].name,
                                   listeners[k].name);
    return true;
}

static unsigned list_count(const char *list)
{
    const char *entry;
    size_t len;
    unsigned count = 0;

    while (list_take(&list, &entry, &len))
        count++;
    return count;
}

static bool admin_is_remote(const struct config *c)
{
    return c->admin.kind == ADMIN_TCP && ip_scope(c->admin.tcp.ip) != SCOPE_LOOPBACK;
}

static bool check_tls(const struct config *c, struct config_error *error)
{
    unsigned certs = list_count(c->tls_cert), keys = list_count(c->tls_key);
    const char *name = certs > 0 ? "tls-cert" : "tls-key";

    if (certs != keys)
        return config_fail(error,
                           "%s: %s: each certificate needs its key, but tls-cert names %u and "
                           "tls-key %u",
                           origin_of(c, name), name, certs, keys);
    if (certs > CONFIG_CERTIFICATES_MAX)
        return config_fail(error, "%s: %s: more than %d certificates", origin_of(c, name), name,
                           CONFIG_CERTIFICATES_MAX);
    if (c->has_wss && certs == 0 && !c->dev) /* --dev makes one */
        return fail_at(c, "wss", error,
                       "needs tls-cert and tls-key (behind a TLS proxy, wss-plain needs none)");
    if (certs > 0 && !c->has_wss && !admin_is_remote(c))
        return fail_at(c, name, error,
                       "not used, since neither wss nor an admin address beyond loopback is set");
    return true;
}

/* "registry.example.org:9000": the name is looked up later, and again. */
static bool is_host_and_port(const char *text)
{
    const char *colon = strrchr(text, ':');
    unsigned port = 0;

    if (colon == NULL || colon == text || colon[1] == '\0')
        return false;
    bool bracketed = text[0] == '[' && colon[-1] == ']' && colon - text > 2;
    if (!bracketed && memchr(text, ':', (size_t)(colon - text)) != NULL)
        return false;
    for (const char *at = colon + 1; *at != '\0'; at++) {
        if (*at < '0' || *at > '9' || port > UINT16_MAX)
            return false;
        port = port * 10 + (unsigned)(*at - '0');
    }
    return port > 0 && port <= UINT16_MAX;
}

static bool check_keys(const struct config *c, struct config_error *error)
{
    char shown[OPTION_SHOWN_MAX];

    if (c->registry_lookup != LOOKUP_NONE && c->registry[0] == '\0')
        return fail_at(c, "registry-lookup", error, "needs registry, the address to ask");
    if (c->registry_lookup != LOOKUP_NONE && !is_host_and_port(c->registry))
        return config_fail(error,
                           "%s: registry = %s: not a host and port, like "
                           "registry.example.org:9000, as registry-lookup needs it",
                           origin_of(c, "registry"), text_show(c->registry, shown));
    if (config_has_sessions(c) && c->keys[0] == '\0' && c->registry_lookup == LOOKUP_NONE &&
        !c->first_use)
        return fail_at(c, c->has_wss ? "wss" : "wss-plain", error,
                       "nobody could authenticate: set keys, registry-lookup or wss-first-use");
    return true;
}

static bool check_mesh(const struct config *c, struct config_error *error)
{
    char shown[OPTION_SHOWN_MAX];

    if (c->gossip_keys[0] && c->beacon_id == 0)
        return fail_at(c, "gossip-keys", error, "needs beacon-id, a number of this beacon's own");
    if (c->registry[0] && c->beacon_id && !is_host_and_port(c->registry))
        return config_fail(error,
                           "%s: registry = %s: not a host and port, like "
                           "registry.example.org:9000",
                           origin_of(c, "registry"), text_show(c->registry, shown));
    if (c->registry_ca[0] && !c->registry_tls)
        return fail_at(c, "registry-ca", error, "not used without registry-tls");
    if (c->max_routes_each > c->max_routes)
        return config_fail(error, "%s: max-routes-each (%u) is more than max-routes (%u)",
                           origin_of(c, set_one(c, "max-routes-each", "max-routes")),
                           c->max_routes_each, c->max_routes);
    if (c->takeover && c->takeover_socket[0] == '\0')
        return fail_at(c, "takeover", error, "needs takeover-socket, where the running one is");
    return true;
}

static bool check_queues(const struct config *c, struct config_error *error)
{
    char each[32], total[32];
    const char *name = set_one(c, "wss-queue-total", "wss-queue");

    if (c->wss_queue_total >= c->wss_queue)
        return true;
    return config_fail(error, "%s: %s: wss-queue-total (%s) is less than wss-queue (%s)",
                       origin_of(c, name), name,
                       size_format(c->wss_queue_total, total, sizeof total),
                       size_format(c->wss_queue, each, sizeof each));
}

/* What a header field carries as it is, and nobody guesses. */
static bool is_token(const char *token)
{
    size_t len = strlen(token);

    if (len < TOKEN_MIN || len > TOKEN_MAX)
        return false;
    for (; *token != '\0'; token++)
        if (*token <= ' ' || *token > '~')
            return false;
    return true;
}

static bool check_admin(const struct config *c, struct config_error *error)
{
    if (c->admin_token[0] != '\0' && !is_token(c->admin_token))
        return fail_at(c, "admin-token", error,
                       "must be 16 to 200 visible ASCII characters without blanks");
    if (!admin_is_remote(c))
        return true;
    if (c->admin_token[0] == '\0')
        return fail_at(c, "admin", error,
                       "needs admin-token, since others can reach an address beyond loopback");
    if (c->tls_cert[0] == '\0')
        return fail_at(c, "admin", error,
                       "needs tls-cert and tls-key, since admin-token must not cross a network "
                       "in clear");
    return true;
}

bool config_finish(struct config *c, struct config_error *error)
{
    set_defaults(c);
    return check_listeners(c, error) && check_tls(c, error) && check_keys(c, error) &&
           check_mesh(c, error) && check_queues(c, error) && check_admin(c, error) &&
           fit_takeover(c, error);
}
