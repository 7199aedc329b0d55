/* Datagrams and pauses of all kinds, from named peers and strangers: all that the last Sync of a
 * source has named is in the store, and after a while of silence nothing is. Input: records of
 * pause, sender, length, bytes. */
#include <stdlib.h>
#include <string.h>

#include "gossip/pilot.h"
#include "proto/wire.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

enum { ROWS = 4096, OWNER_ROWS = 1024, SELF = 9, ROUNDS_MAX = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void *memory(size_t size)
{
    void *m = calloc(1, size);
    CHECK(m);
    return m;
}

static void check_taken(const struct store *s, const struct endpoint *from, const struct pilot *p,
                        const uint8_t *bytes)
{
    struct endpoint at;
    uint64_t heard_ns;
    uint32_t beacon;
    struct reader r = reader_of(bytes + 5, 2);
    unsigned count = read_u16(&r), i = 0;
    while (!(pilot_source(p, i, &at, &heard_ns, &beacon) && endpoint_equal(&at, from)))
        CHECK(++i < pilot_source_count(p));
    const struct store_owner *o = store_owner(s, STORE_MEMBERS_MAX + i);
    CHECK(o->rows <= OWNER_ROWS && o->rank == STORE_PILOT);
    r = reader_of(bytes + 7, 4 * (size_t)count);
    while (o->refused == 0 && read_left(&r) > 0) {
        uint32_t id = read_u32(&r);
        CHECK(id == 0 || store_has(s, STORE_MEMBERS_MAX + i, id));
    }
}

static void round_out(struct pilot *p, uint64_t now_ns)
{
    struct endpoint to;
    unsigned slice;
    const uint8_t *out;
    size_t len;
    for (unsigned i = 0; i < ROUNDS_MAX && pilot_next_ns(p) == 0; i++)
        pilot_tick(p, now_ns);
    while (pilot_send(p, now_ns, &to, &slice, &out, &len))
        CHECK(len >= 7 && len <= 7 + 4 * PILOT_SLICE_MAX && slice < pilot_slices(p));
    CHECK(pilot_next_ns(p) > now_ns);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct store *s = store_init(memory(store_size(ROWS)), ROWS, OWNER_ROWS,
                                 (struct siphash_key){.k0 = 1, .k1 = 2});
    store_owner_begin(s, STORE_SELF, SELF, 1);
    struct reader r = reader_of(bytes, len);
    struct pilot *p = pilot_init(memory(pilot_size()), s, SELF, read_u8(&r) & 1);
    struct endpoint peer[2];
    uint64_t now_ns = UINT64_C(1000000000000);
    CHECK(endpoint_parse("192.0.2.1:9001", &peer[0]) && endpoint_parse("192.0.2.2:9001", &peer[1]));
    while (!r.bad && read_left(&r) > 0) {
        now_ns += (uint64_t)read_u8(&r) * UINT64_C(500000000);
        uint8_t what = read_u8(&r);
        pilot_set_peers(p, peer, what >> 6 & 1 ? 1 : 2, now_ns);
        pilot_tick(p, now_ns);
        round_out(p, now_ns);
        size_t n = read_u16(&r);
        n = n < read_left(&r) ? n : read_left(&r);
        struct endpoint from = peer[what >> 5 & 1];
        from.port = (uint16_t)(what & 31);
        from.ip[15] = (uint8_t)(from.ip[15] + (what >> 7));
        const uint8_t *sync = read_bytes(&r, n);
        enum pilot_taken taken = n ? pilot_sync(p, sync, n, &from, now_ns) : PILOT_SHORT;
        if (taken == PILOT_TAKEN || taken == PILOT_HELD)
            check_taken(s, &from, p, sync);
        CHECK(store_rows(s) <= ROWS);
    }
    /* Silence: all of it goes. */
    now_ns += PILOT_TTL_NS;
    pilot_tick(p, now_ns);
    for (unsigned i = 0; pilot_source_count(p) > 0; i++) {
        CHECK(i < 2 * STORE_PILOTS_MAX);
        pilot_tick(p, now_ns);
    }
    CHECK(store_rows(s) == 0);
    free(p);
    free(s);
    return 0;
}
