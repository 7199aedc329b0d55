#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "cmd/log.h"
#include "cmd/mesh_state.h"
#include "proto/wire.h"

/* A memory file of records: kind (1) | length (2) | body. */
enum { RECORD_HEAD = 3, BLOCK = 1 << 16 };

/* --- out --- */

static bool block_write(int fd, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

/* False: no memory for it. */
static bool records_write(const struct gossip *g, int fd)
{
    uint8_t block[BLOCK];
    struct writer w = writer_of(block, sizeof block);
    struct gossip_passed at = {.member = 0};
    for (;;) {
        uint8_t body[GOSSIP_BODY_MAX];
        enum gossip_kind kind;
        size_t len = gossip_pass(g, &at, &kind, body);
        if (len == 0 || written(&w) + RECORD_HEAD + len > sizeof block) {
            if (!block_write(fd, block, written(&w)))
                return false;
            w = writer_of(block, sizeof block);
        }
        if (len == 0)
            return true;
        write_u8(&w, (uint8_t)kind);
        write_u16(&w, (uint16_t)len);
        write_bytes(&w, body, len);
    }
}

int mesh_save(const struct mesh *m)
{
    int fd = memfd_create("beacon-mesh", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (m && !records_write(m->gossip, fd)) {
        close(fd);
        return -ENOMEM;
    }
    return fd;
}

/* --- in --- */

/* The lanes do not run yet: what they would be told by letter is written at once. */
static void routes_place(struct mesh *m)
{
    struct server *s = m->config.server;
    struct gossip_route r;
    while (gossip_route(m->gossip, &r)) {
        struct lane *l = s->lane[route_owner(s->owner_key, r.id, s->lane_count)];
        if (r.beacon != STORE_NONE)
            route_put_beacon(l->routes, r.id, r.beacon, (enum route_class)(r.meta & DELTA_CLASS),
                             r.meta & DELTA_STREAM);
    }
}

static bool records_read(struct mesh *m, const uint8_t *bytes, size_t len)
{
    struct reader r = reader_of(bytes, len);
    while (!r.bad && read_left(&r) > 0) {
        uint8_t kind = read_u8(&r);
        uint16_t body_len = read_u16(&r);
        const uint8_t *body = read_bytes(&r, body_len);
        if (r.bad || !gossip_inherit(m->gossip, (enum gossip_kind)kind, body, body_len, clock_ns()))
            return false;
        routes_place(m);
    }
    return !r.bad;
}

void mesh_load(struct mesh *m, int fd)
{
    off_t len = lseek(fd, 0, SEEK_END);
    if (len <= 0)
        return; /* the predecessor knew no others */
    void *bytes = mmap(NULL, (size_t)len, PROT_READ, MAP_PRIVATE, fd, 0);
    bool good = bytes != MAP_FAILED && records_read(m, bytes, (size_t)len);
    if (bytes != MAP_FAILED)
        munmap(bytes, (size_t)len);
    if (!good)
        log_line(LOG_WARN, "takeover", "what was known of other beacons is not taken", NULL);
    mesh_beacons_give(m, m->gossip);
}
