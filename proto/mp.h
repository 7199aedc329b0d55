/* mp - MessagePack for small messages of fixed shapes: written with msgpack-c into a struct writer,
 * read by pulling one value after another out of a struct reader.
 *
 * Reading takes no count on trust, allocates nothing and does not recurse. Every reading function
 * sets the reader's `bad` when the next value is not what it wants; the writer's `bad` says that
 * something did not fit, so nobody looks at what msgpack_pack_* return. */
#ifndef BEACON_PROTO_MP_H
#define BEACON_PROTO_MP_H

#include <msgpack/pack.h>
#include "proto/endpoint.h"
#include "proto/wire.h"

enum { MP_SKIP_DEPTH = 3 }; /* arrays in arrays of what is skipped */

/* --- writing --- */

msgpack_packer mp_packer(struct writer *w);
void mp_pack_bin(msgpack_packer *p, const void *bytes, size_t len);
/* As 18 bytes: the address, IPv4 as IPv4-mapped, and the port. */
void mp_pack_endpoint(msgpack_packer *p, const struct endpoint *e);
/* Bytes that the head of an array takes. */
size_t mp_array_head_len(size_t count);

/* --- reading --- */

/* An unsigned number up to `max`, in whichever encoding. */
uint64_t mp_number(struct reader *r, uint64_t max);
uint32_t mp_number32(struct reader *r);
uint64_t mp_number64(struct reader *r);
uint32_t mp_id(struct reader *r); /* not 0 */
/* The bytes lie in what is read. NULL only when `bad`. */
const uint8_t *mp_bin(struct reader *r, size_t *ret_len);
const uint8_t *mp_bin_of(struct reader *r, size_t len);
bool mp_nil(struct reader *r); /* false: it is another value, which stays */
struct endpoint mp_endpoint(struct reader *r);
/* How many elements the array says it has: a claim, until they have been read. */
uint32_t mp_array(struct reader *r);
/* A record is an array of at least `count` elements: opens it, and tells how many more there are;
 * closing it skips them. */
uint32_t mp_open(struct reader *r, uint32_t count);
void mp_close(struct reader *r, uint32_t more);
/* Read to its last byte, and nothing was wrong. */
bool mp_all_read(const struct reader *r);

#endif
