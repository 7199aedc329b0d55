#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>
#include "cmd/front.h"
#include "cmd/log.h"
#include "cmd/say.h"

enum { RETRY_SECONDS = 60 }; /* a pair that was refused is looked at again */
enum {
    ERROR_MAX = (int)TLS_ERROR_MAX > (int)KEYS_ERROR_MAX ? (int)TLS_ERROR_MAX : (int)KEYS_ERROR_MAX
};

/* --- certificates and keys --- */

static bool has_tls(const struct config *c)
{
    return c->tls_cert[0] || c->has_wss;
}

static struct tls *certificates_load(const struct config *c, char error[static TLS_ERROR_MAX])
{
    struct tls *t =
        c->tls_cert[0] ? tls_open(c->tls_cert, c->tls_key, error) : tls_open_self_made(error);
    if (t && tls_warning(t))
        log_line(LOG_WARN, "tls", "certificate", "warning=%s", log_quote(tls_warning(t)));
    return t;
}

static void certificates_use(struct front *f, struct tls *t)
{
    for (unsigned i = 0; i < tls_count(t); i++)
        log_line(LOG_INFO, "tls", "certificate", "name=%s not_after=%jd", log_quote(tls_name(t, i)),
                 (intmax_t)tls_not_after(t, i));
    admin_certificates(f->admin, t);
    edge_set_tls(f->edge, t);
}

static struct tls_stamp stamp_now(const struct config *c)
{
    struct tls_stamp none = {.hash = 0};
    return c->tls_cert[0] ? tls_stamp(c->tls_cert, c->tls_key) : none;
}

static struct keys *keys_load(const struct config *c, int wake, char error[static KEYS_ERROR_MAX])
{
    return keys_open(&(struct keys_config){.file = c->keys,
                                           .lookup = c->registry_lookup,
                                           .registry = c->registry,
                                           .first_use = c->first_use,
                                           .wake = wake},
                     error);
}

bool front_check(const struct config *c, char *error, size_t capacity)
{
    char why[ERROR_MAX];
    struct config quiet = *c;
    quiet.registry_lookup = LOOKUP_NONE; /* nobody is asked */
    struct tls *t = has_tls(c) ? certificates_load(c, why) : NULL;
    bool good = t || !has_tls(c);
    if (t)
        tls_close(t);
    if (good && c->keys[0] && config_has_sessions(c)) {
        struct keys *k = keys_load(&quiet, -1, why);
        good = k;
        if (k)
            keys_close(k);
    }
    if (!good)
        snprintf(error, capacity, "%s", why);
    return good;
}

/* --- what the admin interface asks --- */

static void note_left(struct front_notes *n)
{
    pthread_kill(n->main, SIGUSR2);
}

static void note_reload(void *arg)
{
    struct front *f = arg;
    atomic_store(&f->notes.reload, true);
    note_left(&f->notes);
}

static void note_drain(void *arg, bool on)
{
    struct front *f = arg;
    atomic_store(&f->notes.drain, on ? FRONT_DRAIN_ON : FRONT_DRAIN_OFF);
    note_left(&f->notes);
}

static void note_level(void *arg, enum log_level level)
{
    struct front *f = arg;
    atomic_store(&f->notes.level, (int)level);
    note_left(&f->notes);
}

static void lane_wake(void *arg, unsigned lane)
{
    struct front *f = arg;
    shards_wake(f->shards, lane);
}

static void udp_send(void *arg, struct outbox *out)
{
    struct front *f = arg;
    shards_sender_send(f->sender, out);
}

/* --- opening --- */

static void listener_add(struct front *f, struct edge_listener l)
{
    f->listener[f->listener_count++] = l;
}

static void listeners_choose(struct front *f)
{
    const struct config *c = f->config;
    bool loopback = c->has_health && ip_scope(c->health.ip) == SCOPE_LOOPBACK;
    f->admin->metrics_on_health = !c->has_metrics && (c->dev || loopback);
    if (c->has_health)
        listener_add(
            f, (struct edge_listener){
                   .name = "health", .at = c->health, .handler = admin_health, .arg = f->admin});
    if (c->has_metrics)
        listener_add(
            f, (struct edge_listener){
                   .name = "metrics", .at = c->metrics, .handler = admin_metrics, .arg = f->admin});
    if (c->has_wss)
        listener_add(f, (struct edge_listener){.name = "wss",
                                               .at = c->wss,
                                               .tls = true,
                                               .is_public = true,
                                               .handler = bridge_http,
                                               .arg = f->bridge});
    if (c->has_wss_plain)
        listener_add(f, (struct edge_listener){.name = "wss-plain",
                                               .at = c->wss_plain,
                                               .is_public = true,
                                               .handler = bridge_http,
                                               .arg = f->bridge});
    if (c->admin.kind != ADMIN_OFF) {
        bool is_unix = c->admin.kind == ADMIN_UNIX;
        listener_add(f, (struct edge_listener){.name = "admin",
                                               .at = c->admin.tcp,
                                               .unix_path = is_unix ? c->admin.path : NULL,
                                               .tls = !is_unix &&
                                                      ip_scope(c->admin.tcp.ip) != SCOPE_LOOPBACK,
                                               .handler = api_http,
                                               .arg = &f->api});
    }
}

static int bridge_start(struct front *f, struct server *server)
{
    const struct config *c = f->config;
    return bridge_open(&f->bridge, &(struct bridge_config){
                                       .server = server,
                                       .events = &f->events,
                                       .mesh = f->admin->mesh,
                                       .udp = {.arg = f, .send = udp_send, .wake = lane_wake},
                                       .beacon_id = c->beacon_id,
                                       .sessions_max = c->wss_sessions,
                                       .legacy_auth = c->wss_legacy_auth,
                                   });
}

static uint64_t front_turn(void *arg, const struct conn_turn *turn)
{
    struct front *f = arg;
    uint64_t bridge_ns = f->bridge ? bridge_turn(f->bridge, turn) : UINT64_MAX;
    uint64_t api_ns = api_turn(&f->api, turn);
    return bridge_ns < api_ns ? bridge_ns : api_ns;
}

unsigned front_places(const struct config *c)
{
    unsigned sessions = config_has_sessions(c) ? c->wss_sessions : 0;
    return sessions + (c->admin.kind == ADMIN_OFF ? 0 : API_STREAMS_MAX);
}

static int listeners_open(struct front *f)
{
    const struct config *c = f->config;
    const char *failed = "http";
    int err = edge_open(&f->edge, f->listener, f->listener_count, front_places(c), &failed);
    if (err == 0)
        return 0;
    const char *at = "";
    for (unsigned i = 0; i < f->listener_count; i++)
        if (strcmp(f->listener[i].name, failed) == 0)
            at = f->listener[i].unix_path ? f->listener[i].unix_path
                                          : endpoint_text(&f->listener[i].at);
    log_line(LOG_ERROR, failed, "cannot listen", "addr=%s error=%s", log_quote(at),
             log_quote(strerror(-err)));
    return err;
}

/* Where a probe of our own reaches a public listener; TLS, if there is one, is what can break. */
static void probe_set(struct front *f)
{
    static const uint8_t loop4[4] = {127, 0, 0, 1};
    for (unsigned i = f->listener_count; i-- > 0;) {
        const struct edge_listener *l = &f->listener[i];
        struct endpoint at = l->at;
        if (!l->is_public)
            continue;
        if (endpoint_is_any(&at)) /* an IPv6 wildcard takes IPv4 too, and is one without IPv6 */
            at = endpoint_of(loop4, 4, at.port);
        /* From one of our own addresses the kernel connects from the same one. */
        f->admin->probe_wss = (struct probe_target){
            .at = at,
            .how = l->tls ? PROBE_HTTPS : PROBE_HTTP,
            .behind_proxy = prefixes_have(&f->config->proxies, &at),
        };
    }
}

static void limits_set(struct front *f)
{
    const struct config *c = f->config;
    struct edge_limits limits = *edge_limits(f->edge);
    limits.per_ipv4 = c->wss_per_ipv4;
    limits.per_ipv6_64 = c->wss_per_ipv6_64;
    limits.handshakes = c->wss_handshakes;
    limits.handshakes_total = c->wss_handshakes_total;
    limits.queue_each = c->wss_queue;
    limits.queue_total = c->wss_queue_total;
    limits.proxies = &c->proxies;
    edge_set_limits(f->edge, &limits);
}

static int secrets_open(struct front *f)
{
    const struct config *c = f->config;
    char error[ERROR_MAX];
    if (has_tls(c)) {
        f->loaded = f->seen = stamp_now(c);
        struct tls *t = certificates_load(c, error);
        if (!t) {
            log_line(LOG_ERROR, "tls", "no certificate", "error=%s", log_quote(error));
            return EX_CONFIG;
        }
        certificates_use(f, t);
    }
    if (config_has_sessions(c)) {
        f->keys = keys_load(c, edge_wake_fd(f->edge), error);
        if (!f->keys) {
            log_line(LOG_ERROR, "keys", "no keys", "error=%s", log_quote(error));
            return EX_CONFIG;
        }
        bridge_set_keys(f->bridge, f->keys);
    }
    return 0;
}

int front_open(struct front *f, const struct config *c, struct server *server,
               struct shards *shards, struct admin *admin)
{
    f->config = c;
    f->shards = shards;
    f->admin = admin;
    f->notes.main = pthread_self();
    atomic_store(&f->notes.level, -1);
    events_init(&f->events);
    if (config_has_sessions(c) &&
        (bridge_start(f, server) < 0 || !(f->sender = shards_sender_new(shards, server->edge)))) {
        log_line(LOG_ERROR, "wss", "no memory", "sessions=%u", c->wss_sessions);
        return -ENOMEM;
    }
    f->api = (struct api){
        .admin = admin,
        .bridge = f->bridge,
        .events = &f->events,
        .token = c->admin_token,
        .commands = {.arg = f,
                     .reload = note_reload,
                     .drain = note_drain,
                     .log_level = note_level,
                     .wake = lane_wake},
    };
    listeners_choose(f);
    if (f->listener_count == 0)
        return 0;
    int err = listeners_open(f);
    if (err < 0)
        return err;
    limits_set(f);
    probe_set(f);
    edge_set_turn(f->edge, front_turn, f);
    admin->edge = f->edge;
    admin->bridge = f->bridge;
    err = secrets_open(f);
    admin->keys = f->keys;
    if (err != 0 || !f->bridge)
        return err;
    err = shards_set_edge(shards, edge_wake_fd(f->edge));
    if (err < 0)
        log_line(LOG_ERROR, "wss", "no descriptor to be woken by", "error=%s",
                 log_quote(strerror(-err)));
    return err;
}

int front_start(struct front *f)
{
    return f->edge ? edge_start(f->edge) : 0;
}

void front_close(struct front *f)
{
    if (f->edge)
        edge_close(f->edge);
    if (f->bridge)
        bridge_close(f->bridge);
    if (f->keys)
        keys_close(f->keys);
    if (f->sender)
        shards_sender_free(f->sender);
    f->edge = NULL; /* who wakes it or asks for it still finds nothing */
    f->bridge = NULL;
    f->keys = NULL;
    f->sender = NULL;
}

/* --- running --- */

bool front_reload(struct front *f, char *error, size_t capacity)
{
    const struct config *c = f->config;
    char why[ERROR_MAX];
    struct tls_stamp stamp = stamp_now(c);
    struct tls *t = c->tls_cert[0] ? certificates_load(c, why) : NULL;
    bool good = t || !c->tls_cert[0];
    if (good && c->keys[0] && f->keys && !keys_reload(f->keys, c->keys, why)) {
        good = false;
        if (t)
            tls_close(t);
    }
    if (!good) {
        snprintf(error, capacity, "%s", why);
        return false;
    }
    if (t) {
        f->loaded = f->seen = stamp;
        certificates_use(f, t);
    }
    return true;
}

void front_wake(const struct front *f)
{
    uint64_t one = 1;
    if (!f->edge)
        return;
    ssize_t n = write(edge_wake_fd(f->edge), &one, sizeof one); /* fails only when it is awake */
    (void)n;
}

void front_event(struct front *f, const char *kind, const char *text)
{
    events_add(&f->events, false, kind, "%s", text);
    front_wake(f); /* streams get it at once */
}

/* What strangers did is for who looks for it; the rest was logged when it happened. */
static void strangers_log(struct front *f)
{
    struct event e;
    while (events_next(&f->events, f->logged, &e)) {
        f->logged = e.sequence;
        if (e.stranger)
            log_line(LOG_DEBUG, e.kind, "event", "text=%s", log_quote(e.text));
    }
}

void front_watch(struct front *f)
{
    strangers_log(f);
    const struct config *c = f->config;
    char error[ERROR_MAX];
    if (!c->tls_cert[0] || !f->edge)
        return;
    struct tls_stamp now = stamp_now(c);
    if (now.hash == 0 && f->seen.hash != 0)
        log_line(LOG_WARN, "tls", "a certificate file is gone, the loaded ones stay", NULL);
    bool settled = now.hash == f->seen.hash;
    f->seen = now;
    if (!settled || now.hash == 0 || now.hash == f->loaded.hash)
        return;
    /* What was refused may have been fine but for want of a descriptor or memory just then. */
    if (now.hash == f->refused.hash && ++f->refused_s < RETRY_SECONDS)
        return;
    struct tls *t = certificates_load(c, error);
    if (t) {
        f->loaded = now;
        certificates_use(f, t);
        front_event(f, "certificate", "new files taken");
        return;
    }
    f->refused = now; /* said once a minute */
    f->refused_s = 0;
    log_line(LOG_ERROR, "tls", "certificate refused, the old one stays", "error=%s",
             log_quote(error));
    char text[EVENTS_TEXT_MAX];
    snprintf(text, sizeof text, "refused: %.*s", EVENTS_TEXT_MAX - 10, error);
    front_event(f, "certificate", text);
}

void front_drain(struct front *f, bool on, unsigned spread_ms)
{
    atomic_store(&f->admin->draining, on);
    if (f->bridge)
        bridge_drain(f->bridge, on, spread_ms);
    front_event(f, "drain", on ? "draining" : "serving again");
}

bool front_alive(const struct front *f, uint64_t now_ns, unsigned stuck_s)
{
    uint64_t at_ns = f->edge ? edge_tick_ns(f->edge) : now_ns;
    return now_ns <= at_ns || now_ns - at_ns <= stuck_s * UINT64_C(1000000000);
}

uint64_t front_sessions(const struct front *f)
{
    return f->bridge ? count_read(&bridge_stats(f->bridge)->sessions) : 0;
}
