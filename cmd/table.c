#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cmd/table.h"
#include "proto/wire.h"

enum {
    TABLE_VERSION = 1,
    HEAD_LEN = 32, /* what the checksum covers of the head */
    SUM_LEN = 32,
    FRONT_LEN = HEAD_LEN + SUM_LEN,
    ROW_LEN = 76,
    BLOCK_ROWS = 512, /* read and written at once */
    PAGE_ROWS = 4096,
    FLAGS_KNOWN = ROUTE_WANTS_DEST | ROUTE_HAS_KEY | ROUTE_AGE | ROUTE_STREAM,
};
static_assert(ROW_LEN == 4 + 4 + 16 + 2 + 16 + 1 + 1 + MSG_KEY_LEN, "as the header says");
/* Nobody else may change it, or cut it under a reader. */
enum { SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW };

static const uint8_t mark[8] = {'B', 'E', 'A', 'C', 'N', 'T', 'A', 'B'};

struct table_head {
    uint64_t rows, written_ns;
};

static bool write_all(int fd, const uint8_t *bytes, size_t len, off_t at)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, bytes, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
        at += n;
    }
    return true;
}

static bool read_all(int fd, uint8_t *bytes, size_t len, off_t at)
{
    while (len > 0) {
        ssize_t n = pread(fd, bytes, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
        at += n;
    }
    return true;
}

static void sum_init(crypto_generichash_state *sum)
{
    crypto_generichash_init(sum, NULL, 0, SUM_LEN);
}

/* --- writing --- */

struct output {
    const struct server *server;
    const struct routes *part;
    uint32_t since_s, now_s;
    int fd, err;
    uint64_t rows;
    off_t at;
    crypto_generichash_state sum;
    struct writer block;
    uint8_t bytes[BLOCK_ROWS * ROW_LEN];
};

static void block_flush(struct output *o)
{
    size_t len = written(&o->block);
    crypto_generichash_update(&o->sum, o->bytes, len);
    if (o->err == 0 && !write_all(o->fd, o->bytes, len, o->at))
        o->err = errno ? -errno : -EIO;
    o->at += (off_t)len;
    o->block = writer_of(o->bytes, sizeof o->bytes);
}

static void row_write(const struct route *r, void *arg)
{
    static const uint8_t none[MSG_KEY_LEN];
    struct output *o = arg;
    uint8_t key[MSG_KEY_LEN];
    /* The clock is read before the table is: a row may be a second younger than now. */
    uint32_t age_s = r->seen_s < o->now_s ? o->now_s - r->seen_s : 0;
    if (r->class_ > ROUTE_KEYED || r->seen_s < o->since_s)
        return;
    bool has_key = route_find_key(o->part, r->id, key);
    if (o->block.at == o->block.end)
        block_flush(o);
    struct writer *w = &o->block;
    write_u32(w, r->id);
    write_u32(w, age_s);
    write_bytes(w, r->at.ip, 16);
    write_u16(w, r->at.port);
    write_bytes(w, o->server->service.ip[r->local], 16); /* index 0: zeros */
    write_u8(w, r->class_);
    write_u8(w,
             (uint8_t)((r->flags & FLAGS_KNOWN & ~ROUTE_HAS_KEY) | (has_key ? ROUTE_HAS_KEY : 0)));
    write_bytes(w, has_key ? key : none, MSG_KEY_LEN);
    o->rows++;
}

static void head_write(uint8_t bytes[static HEAD_LEN], uint64_t rows, uint64_t now_ns)
{
    struct writer w = writer_of(bytes, HEAD_LEN);
    write_bytes(&w, mark, sizeof mark);
    write_u32(&w, TABLE_VERSION);
    write_u32(&w, ROW_LEN);
    write_u64(&w, rows);
    write_u64(&w, now_ns);
}

/* Behind the rows, which it covers as well. */
static void front_write(struct output *o, uint64_t now_ns)
{
    uint8_t front[FRONT_LEN];
    head_write(front, o->rows, now_ns);
    crypto_generichash_update(&o->sum, front, HEAD_LEN);
    crypto_generichash_final(&o->sum, front + HEAD_LEN, SUM_LEN);
    if (o->err == 0 && !write_all(o->fd, front, sizeof front, 0))
        o->err = errno ? -errno : -EIO;
    if (o->err == 0 && fcntl(o->fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
        o->err = -errno;
}

int table_write(const struct server *s, uint32_t since_s, uint64_t now_ns)
{
    struct output *o = calloc(1, sizeof *o);
    if (!o)
        return -ENOMEM;
    o->server = s;
    o->since_s = since_s;
    o->now_s = (uint32_t)(now_ns / 1000000000u);
    o->at = FRONT_LEN;
    o->block = writer_of(o->bytes, sizeof o->bytes);
    sum_init(&o->sum);
    o->fd = memfd_create("beacon-table", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (o->fd < 0)
        o->err = -errno;
    for (unsigned i = 0; o->err == 0 && i < s->lane_count; i++) {
        uint32_t row = 0;
        o->part = s->lane[i]->routes;
        do
            row = route_page(o->part, row, PAGE_ROWS, row_write, o);
        while (row != 0 && o->err == 0);
    }
    block_flush(o);
    front_write(o, now_ns);
    int fd = o->fd, err = o->err;
    free(o);
    if (err < 0 && fd >= 0)
        close(fd);
    return err < 0 ? err : fd;
}

/* --- reading --- */

struct input {
    struct service *service;
    int fd;
    uint32_t now_s, older_s; /* seconds since it was written */
    table_row *each;         /* NULL: only looks */
    void *arg;
    uint8_t bytes[BLOCK_ROWS * ROW_LEN];
};

/* False: no such row can be. */
static bool row_read(struct input *in, const uint8_t bytes[static ROW_LEN])
{
    static const uint8_t nowhere[16];
    struct reader r = reader_of(bytes, ROW_LEN);
    struct route route = {.id = read_u32(&r)};
    uint64_t age_s = (uint64_t)read_u32(&r) + in->older_s;
    memcpy(route.at.ip, read_bytes(&r, 16), 16);
    route.at.port = read_u16(&r);
    const uint8_t *local = read_bytes(&r, 16);
    route.class_ = read_u8(&r);
    route.flags = read_u8(&r);
    const uint8_t *key = read_bytes(&r, MSG_KEY_LEN);
    if (route.id == 0 || route.at.port == 0 || endpoint_is_any(&route.at) ||
        (route.class_ != ROUTE_UNVERIFIED && route.class_ != ROUTE_SIGNED &&
         route.class_ != ROUTE_KEYED) ||
        (route.flags & ~FLAGS_KNOWN))
        return false;
    if (!in->each)
        return true;
    route.seen_s = age_s < in->now_s ? in->now_s - (uint32_t)age_s : 0;
    if (memcmp(local, nowhere, 16) != 0)
        route.local = service_index(in->service, local);
    in->each(in->arg, &route, route.flags & ROUTE_HAS_KEY ? key : NULL);
    return true;
}

/* All rows, in blocks. False: it cannot be read, or a row is wrong. */
static bool rows_read(struct input *in, uint64_t rows, crypto_generichash_state *sum)
{
    off_t at = FRONT_LEN;
    while (rows > 0) {
        size_t count = rows < BLOCK_ROWS ? rows : BLOCK_ROWS, len = count * ROW_LEN;
        if (!read_all(in->fd, in->bytes, len, at))
            return false;
        crypto_generichash_update(sum, in->bytes, len);
        for (size_t i = 0; i < count; i++)
            if (!row_read(in, in->bytes + i * ROW_LEN))
                return false;
        at += (off_t)len;
        rows -= count;
    }
    return true;
}

/* The head fits the file's size. */
static bool head_read(int fd, const uint8_t front[static FRONT_LEN], struct table_head *ret)
{
    struct stat st;
    struct reader r = reader_of(front, HEAD_LEN);
    if (memcmp(read_bytes(&r, sizeof mark), mark, sizeof mark) != 0 ||
        read_u32(&r) != TABLE_VERSION || read_u32(&r) != ROW_LEN)
        return false;
    ret->rows = read_u64(&r);
    ret->written_ns = read_u64(&r);
    if (fstat(fd, &st) < 0 || st.st_size < FRONT_LEN)
        return false;
    uint64_t bytes = (uint64_t)st.st_size - FRONT_LEN;
    return bytes % ROW_LEN == 0 && bytes / ROW_LEN == ret->rows;
}

static bool is_sealed(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & SEALS) == SEALS;
}

int table_read(int fd, struct service *service, uint64_t now_ns, table_row *each, void *arg)
{
    uint8_t front[FRONT_LEN], is[SUM_LEN];
    struct table_head head;
    crypto_generichash_state sum;
    if (!is_sealed(fd) || !read_all(fd, front, sizeof front, 0) || !head_read(fd, front, &head) ||
        head.written_ns > now_ns)
        return -EBADMSG;
    struct input *in = malloc(sizeof *in);
    if (!in)
        return -ENOMEM;
    in->service = service;
    in->fd = fd;
    in->now_s = (uint32_t)(now_ns / 1000000000u);
    in->older_s = (uint32_t)((now_ns - head.written_ns) / 1000000000u);
    in->arg = arg;
    in->each = NULL;
    sum_init(&sum);
    bool good = rows_read(in, head.rows, &sum);
    crypto_generichash_update(&sum, front, HEAD_LEN);
    crypto_generichash_final(&sum, is, sizeof is);
    good = good && memcmp(is, front + HEAD_LEN, SUM_LEN) == 0;
    in->each = each;
    sum_init(&sum);
    good = good && rows_read(in, head.rows, &sum);
    free(in);
    return good ? 0 : -EBADMSG;
}
