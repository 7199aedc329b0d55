#include "cmd/mesh.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include "cmd/log.h"
#include "cmd/mesh_state.h"
#include "cmd/resources.h"

/* --- opening --- */

/* The whole file, if it is one and not open to all. Returns its length; -1, with the reason. */
static ssize_t secret_read(const char *path, char *text, size_t room, char *error, size_t capacity)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 || fstat(fd, &st) < 0 ? -1 : read(fd, text, room);
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (len < 0)
        snprintf(error, capacity, "%s: %s", path, strerror(why));
    else if (st.st_mode & (S_IROTH | S_IWOTH))
        snprintf(error, capacity, "%s: mode %04o opens it to everyone on this host: chmod o-rwx",
                 path, (unsigned)(st.st_mode & 07777));
    else if ((size_t)len == room) /* what does not fit would be cut off, perhaps a key with it */
        snprintf(error, capacity, "%s: longer than %zu bytes", path, room - 1);
    else
        return len;
    return -1;
}

static bool ring_load(const char *path, struct seal_ring *ret, char *error, size_t capacity)
{
    char text[4096], why[SEAL_ERROR_MAX];
    ssize_t len = secret_read(path, text, sizeof text, error, capacity);
    bool good = len >= 0 && seal_ring_read(ret, path, text, (size_t)len, why);
    sodium_memzero(text, sizeof text);
    if (len >= 0 && !good)
        snprintf(error, capacity, "%s", why);
    return good;
}

bool mesh_check(const struct config *c, char *error, size_t capacity)
{
    struct peer_name names[GOSSIP_SEEDS_MAX];
    struct seal_ring ring;
    char why[REGISTRY_ERROR_MAX];
    if (peer_names_read("peers", c->peers, strlen(c->peers), names, GOSSIP_SEEDS_MAX, why) < 0) {
        snprintf(error, capacity, "%s", why);
        return false;
    }
    if (!c->gossip_keys[0])
        return true;
    bool good = ring_load(c->gossip_keys, &ring, error, capacity);
    sodium_memzero(&ring, sizeof ring);
    return good;
}

bool mesh_reload(struct mesh *m, char *error, size_t capacity)
{
    const char *path = m->config.config->gossip_keys;
    if (!path[0])
        return true;
    struct seal_ring *ring = calloc(1, sizeof *ring);
    if (!ring || !ring_load(path, ring, error, capacity)) {
        if (!ring)
            snprintf(error, capacity, "no memory for the keys");
        free(ring);
        return false;
    }
    struct seal_ring *old = atomic_exchange(&m->ring, ring);
    if (old)
        sodium_memzero(old, sizeof *old);
    free(old);
    mesh_wake(m);
    return true;
}

static void on_say(void *arg, bool bad, const char *what, const char *text)
{
    (void)arg;
    log_line(bad ? LOG_WARN : LOG_INFO, what, "other beacons", "text=%s", log_quote(text));
}

static int gossip_open(struct mesh *m)
{
    const struct config *c = m->config.config;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    uint32_t own = c->max_nodes + c->max_nodes / 4;
    struct gossip_config g = {
        .beacon_id = c->beacon_id,
        .boot = (uint64_t)wall.tv_sec * 1000 + (uint64_t)wall.tv_nsec / 1000000,
        .rows = c->max_routes + own,
        .own_rows = own,
        .owner_rows = c->max_routes_each ? c->max_routes_each : (c->max_routes + 1) / 2,
        .strict = c->strict_gossip,
    };
    randombytes_buf(g.seed, sizeof g.seed);
    m->memory = memory_take(gossip_size(&g), c->max_routes);
    if (!m->memory)
        return -ENOMEM;
    m->gossip = gossip_init(m->memory, &g, clock_ns());
    sodium_memzero(g.seed, sizeof g.seed);
    return 0;
}

static int thread_open(struct mesh *m)
{
    struct mesh_thread_config t = {
        .gossip = m->gossip,
        .socket = shards_mesh_socket(m->config.shards),
        .sender = shards_wide_socket(m->config.shards),
        .family = shards_family(m->config.shards),
        .bound = m->config.bound,
        .arg = m,
    };
    mesh_callbacks(&t);
    int err = mesh_thread_open(&m->thread, &t);
    if (err == 0)
        err = shards_set_mesh(m->config.shards, mesh_thread_wake_fd(m->thread));
    return err;
}

static int discover_start(struct mesh *m)
{
    const struct config *c = m->config.config;
    char error[REGISTRY_ERROR_MAX];
    struct discover_config d = {
        .peers = c->peers,
        .peers_file = c->peers_file,
        .peers_dns = c->peers_dns,
        .registry = c->registry,
        .registry_tls = c->registry_tls,
        .registry_ca = c->registry_ca,
        .registry_token = c->registry_admin_token,
        .beacon_id = c->beacon_id,
        .advertise = c->advertise_addr,
        .bound = m->config.bound,
        .pilot_default = !c->gossip_keys[0],
        .say = on_say,
        .arg = m,
        .wake = mesh_thread_wake_fd(m->thread),
    };
    m->discover = discover_open(&d, error);
    if (m->discover)
        return 0;
    log_line(LOG_ERROR, "mesh", "cannot look for other beacons", "error=%s", log_quote(error));
    return EX_CONFIG;
}

int mesh_open(struct mesh **ret, const struct mesh_config *c)
{
    struct mesh *m = aligned_alloc(64, (sizeof *m + 63) & ~(size_t)63);
    char error[CONFIG_ERROR_MAX];
    if (!m)
        return -ENOMEM;
    memset(m, 0, sizeof *m);
    *ret = m;
    m->config = *c;
    m->lane = c->server->mesh;
    m->peers_turn = 0;
    pthread_mutex_init(&m->view.lock, NULL);
    if (!mesh_check(c->config, error, sizeof error) || !mesh_reload(m, error, sizeof error)) {
        log_line(LOG_ERROR, "mesh", "cannot join other beacons", "error=%s", log_quote(error));
        return EX_CONFIG;
    }
    int err = gossip_open(m);
    if (err == 0)
        err = thread_open(m);
    if (err == 0 && !(m->sender = shards_sender_new(c->shards, m->lane)))
        err = -ENOMEM;
    if (err < 0)
        log_line(LOG_ERROR, "mesh", "cannot open", "error=%s", log_quote(strerror(-err)));
    return err;
}

int mesh_start(struct mesh *m)
{
    mesh_scan(m); /* a table that was taken over */
    mesh_say_state(m, m->gossip, clock_ns());
    mesh_show(m, m->gossip, clock_ns());
    int err = discover_start(m);
    return err ? err : mesh_thread_start(m->thread);
}

/* No lane reads our table of beacons any more. */
static bool peers_withdrawn(struct mesh *m)
{
    struct server *s = m->config.server;
    server_set_peers(s, NULL);
    server_begin(m->lane); /* its thread has ended */
    for (int ms = 0; ms < WITHDRAW_MS && !server_peers_settled(s); ms++) {
        for (unsigned i = 0; i < s->lane_count; i++)
            shards_wake(m->config.shards, i);
        m->config.wake_edge(m->config.arg);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return server_peers_settled(s);
}

void mesh_stop(struct mesh *m, bool quietly)
{
    if (!m)
        return;
    if (m->thread)
        mesh_thread_stop(m->thread, quietly);
    if (m->discover)
        discover_close(m->discover);
    m->discover = NULL;
    if (!quietly)
        m->in_use = !peers_withdrawn(m);
}

void mesh_close(struct mesh *m)
{
    if (!m)
        return;
    if (m->thread)
        mesh_thread_close(m->thread);
    if (m->sender)
        shards_sender_free(m->sender);
    struct seal_ring *ring = atomic_load(&m->ring);
    if (ring)
        sodium_memzero(ring, sizeof *ring);
    free(ring);
    free(m->memory);
    pthread_mutex_destroy(&m->view.lock);
    if (!m->in_use) /* else it is left to the shard that is stuck */
        free(m);
}

/* --- running --- */

void mesh_wake(const struct mesh *m)
{
    if (m->thread)
        mesh_thread_wake(m->thread);
}

void mesh_drain(struct mesh *m, bool on)
{
    atomic_store(&m->draining, on);
    mesh_wake(m);
}

bool mesh_alive(const struct mesh *m, uint64_t now_ns, unsigned stuck_s)
{
    uint64_t at_ns = mesh_thread_tick_ns(m->thread);
    return now_ns <= at_ns || now_ns - at_ns <= stuck_s * UINT64_C(1000000000);
}
