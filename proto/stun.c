#include "proto/stun.h"

enum { FINGERPRINT_LEN = 8, COOKIE_HIGH = STUN_COOKIE >> 16 };

/* --- CRC-32 --- */

/* The table is linear: the entry of a XOR b is the XOR of their entries, so eight constants, one
 * for each bit of the index, make all 256. Each line doubles the one above. */
#define CRC_2(x) (x), (x) ^ 0x77073096u
#define CRC_4(x) CRC_2(x), CRC_2((x) ^ 0xee0e612cu)
#define CRC_8(x) CRC_4(x), CRC_4((x) ^ 0x076dc419u)
#define CRC_16(x) CRC_8(x), CRC_8((x) ^ 0x0edb8832u)
#define CRC_32(x) CRC_16(x), CRC_16((x) ^ 0x1db71064u)
#define CRC_64(x) CRC_32(x), CRC_32((x) ^ 0x3b6e20c8u)
#define CRC_128(x) CRC_64(x), CRC_64((x) ^ 0x76dc4190u)

static const uint32_t crc_table[] = {CRC_128(0), CRC_128(0xedb88320u)};
static_assert(sizeof crc_table == 256 * sizeof *crc_table, "one entry a byte");

uint32_t stun_crc32(const uint8_t *bytes, size_t len)
{
    uint32_t crc = ~(uint32_t)0;
    for (size_t i = 0; i < len; i++)
        crc = crc >> 8 ^ crc_table[(crc ^ bytes[i]) & 0xff];
    return ~crc;
}

/* --- attributes --- */

/* Type, length, value, padding to 4 (RFC 8489, 14).
 *
 *  0                   1                   2                   3
 * |             type              |     length without padding    |
 * |                        value, padding                      .... */
struct stun_attr {
    const uint8_t *start; /* of the attribute's own header */
    uint16_t type;
    struct reader value;
};

/* `r` ends at the next attribute. */
static struct stun_attr stun_next(struct reader *r)
{
    struct stun_attr a = {.start = r->at};
    a.type = read_u16(r);
    size_t len = read_u16(r);
    a.value = read_sub(r, len); /* cannot look past its own attribute */
    read_bytes(r, -len & 3);
    return a;
}

static void stun_write_attr(struct writer *w, enum stun_attr_type type, size_t len)
{
    write_u16(w, (uint16_t)type);
    write_u16(w, (uint16_t)len);
}

/* Attributes of RFC 8489 and of ICE that a server without authentication has no use for. They are
 * known but unexpected, which is no reason to refuse (RFC 8489, 6.3). */
static bool known_required(uint16_t type)
{
    switch (type) {
    case STUN_MAPPED_ADDRESS:
    case STUN_USERNAME:
    case STUN_MESSAGE_INTEGRITY:
    case STUN_ERROR_CODE:
    case STUN_UNKNOWN_ATTRIBUTES:
    case STUN_XOR_MAPPED_ADDRESS:
    case 0x0014: /* REALM */
    case 0x0015: /* NONCE */
    case 0x001C: /* MESSAGE-INTEGRITY-SHA256 */
    case 0x001D: /* PASSWORD-ALGORITHM */
    case 0x001E: /* USERHASH */
    case 0x0024: /* PRIORITY */
    case 0x0025: /* USE-CANDIDATE */
        return true;
    default:
        return false;
    }
}

static bool ends_in_integrity(uint16_t type)
{
    return type == STUN_MESSAGE_INTEGRITY || type == 0x001C;
}

static bool required(uint16_t type)
{
    return type < 0x8000;
}

/* --- reading a request --- */

/* |0 0|  message type (14)    |       length of attributes        |
 * |                 magic cookie 0x2112A442                       |
 * |                 transaction id (96 bits)                      | */
struct stun_head {
    uint16_t type;
    const uint8_t *id; /* cookie and transaction id */
    bool legacy;
};

/* Leaves `r` at the first attribute. False: no STUN header of a message of this length. */
static bool read_head(struct reader *r, struct stun_head *ret)
{
    struct stun_head h = {.type = read_u16(r)};
    size_t attrs_len = read_u16(r);
    h.id = r->at;
    h.legacy = read_u32(r) != STUN_COOKIE;
    read_bytes(r, 12);
    if (r->bad || h.type >> 14 != 0 || attrs_len % 4 != 0 || attrs_len != read_left(r))
        return false;
    *ret = h;
    return true;
}

/* A list of more than STUN_UNKNOWN_MAX is cut: the answer must stay small, and a client that is
 * told of 32 attributes has learned enough. */
static void note_unknown(struct stun_request *q, uint16_t type)
{
    for (size_t i = 0; i < q->unknown_count; i++) {
        if (q->unknown[i] == type)
            return;
    }
    if (q->unknown_count < STUN_UNKNOWN_MAX)
        q->unknown[q->unknown_count++] = type;
}

/* FINGERPRINT covers all that stands before it, and nothing may stand behind it. */
static bool fingerprint_right(const uint8_t *bytes, struct stun_attr a, const struct reader *behind)
{
    uint32_t got = read_u32(&a.value);
    return !a.value.bad && read_left(&a.value) == 0 && read_left(behind) == 0 &&
           got == (stun_crc32(bytes, (size_t)(a.start - bytes)) ^ STUN_FINGERPRINT_XOR);
}

/* Every client of the Debian package stun-client sends CHANGE-REQUEST, with no flag set in its
 * first test: such a one asks for nothing. */
static bool read_change(struct stun_request *q, struct stun_attr a)
{
    uint32_t flags = read_u32(&a.value);
    if (a.value.bad || read_left(&a.value) > 0)
        return false;
    if (flags != 0)
        note_unknown(q, STUN_CHANGE_REQUEST);
    return true;
}

/* Walks the attributes. Behind MESSAGE-INTEGRITY only FINGERPRINT counts (RFC 8489, 14.5): whoever
 * added more there was not the sender. Only the first CHANGE-REQUEST counts (RFC 8489, 14). */
static enum stun_verdict read_attrs(const uint8_t *bytes, struct reader *r, struct stun_request *q)
{
    bool change_seen = false, integrity_seen = false;
    while (read_left(r) > 0) {
        struct stun_attr a = stun_next(r);
        if (r->bad)
            return STUN_MALFORMED;
        if (a.type == STUN_FINGERPRINT && !q->legacy) {
            if (!fingerprint_right(bytes, a, r))
                return STUN_BAD_FINGERPRINT;
            q->fingerprint = true;
        } else if (integrity_seen || !required(a.type)) {
            continue;
        } else if (a.type == STUN_CHANGE_REQUEST) {
            if (!change_seen && !read_change(q, a))
                return STUN_MALFORMED;
            change_seen = true;
        } else if (!known_required(a.type)) {
            note_unknown(q, a.type);
        }
        integrity_seen = integrity_seen || ends_in_integrity(a.type);
    }
    return q->unknown_count > 0 ? STUN_UNKNOWN_REQUIRED : STUN_REQUEST;
}

enum stun_verdict stun_read(const uint8_t *bytes, size_t len, struct stun_request *ret)
{
    struct reader r = reader_of(bytes, len);
    struct stun_head h;
    if (!read_head(&r, &h))
        return STUN_MALFORMED;
    struct stun_request q = {.id = h.id, .legacy = h.legacy};
    enum stun_verdict v = read_attrs(bytes, &r, &q);
    if (v != STUN_REQUEST && v != STUN_UNKNOWN_REQUIRED)
        return v;
    switch (h.type) {
    case STUN_BINDING_REQUEST:
        *ret = q;
        return v;
    case STUN_BINDING_INDICATION:
        return STUN_INDICATION;
    case STUN_BINDING_SUCCESS:
    case STUN_BINDING_ERROR:
        return STUN_RESPONSE;
    default:
        return STUN_MALFORMED;
    }
}

/* --- writing --- */

static void write_head(struct writer *w, enum stun_type type, size_t attrs_len, const uint8_t *id)
{
    write_u16(w, (uint16_t)type);
    write_u16(w, (uint16_t)attrs_len);
    write_bytes(w, id, 16);
}

/* `start` is where the message begins; its header already counts the FINGERPRINT. */
static void write_fingerprint(struct writer *w, const uint8_t *start)
{
    if (w->bad)
        return;
    uint32_t crc = stun_crc32(start, (size_t)(w->at - start));
    stun_write_attr(w, STUN_FINGERPRINT, 4);
    write_u32(w, crc ^ STUN_FINGERPRINT_XOR);
}

/* |0 0 0 0 0 0 0 0|    family     |             port              |
 * |                 address (32 or 128 bits)                      |
 * XORed, when `key` is given, with the cookie (port, IPv4) or cookie and transaction id (IPv6). */
static void write_mapped(struct writer *w, const struct endpoint *e, const uint8_t *key)
{
    bool v4 = endpoint_is_v4(e);
    size_t ip_len = v4 ? 4 : 16;
    const uint8_t *ip = e->ip + sizeof e->ip - ip_len;
    stun_write_attr(w, key ? STUN_XOR_MAPPED_ADDRESS : STUN_MAPPED_ADDRESS, 4 + ip_len);
    write_u8(w, 0);
    write_u8(w, v4 ? 1 : 2);
    write_u16(w, (uint16_t)(key ? e->port ^ COOKIE_HIGH : e->port));
    for (size_t i = 0; i < ip_len; i++)
        write_u8(w, key ? ip[i] ^ key[i] : ip[i]);
}

/* ERROR-CODE 420 without its reason phrase, which would only make the answer longer than the
 * question, then the list.
 *
 * |              21 bits 0                  |class|    number     | */
static void write_unknown(struct writer *w, const struct stun_request *q, size_t listed)
{
    stun_write_attr(w, STUN_ERROR_CODE, 4);
    write_u32(w, 4 << 8 | 20);
    stun_write_attr(w, STUN_UNKNOWN_ATTRIBUTES, 2 * listed);
    for (size_t i = 0; i < listed; i++)
        write_u16(w, q->unknown[i < q->unknown_count ? i : q->unknown_count - 1u]);
    if (listed % 2 != 0)
        write_u16(w, 0);
}

void stun_answer(struct writer *w, const struct stun_request *q, const struct endpoint *source)
{
    const uint8_t *start = w->at;
    size_t fingerprint_len = q->fingerprint ? FINGERPRINT_LEN : 0;
    if (q->unknown_count > 0) {
        /* RFC 3489 knows no padding: it repeats the last type of an odd list (11.2.10). */
        size_t listed = q->unknown_count + (q->legacy ? q->unknown_count % 2u : 0u);
        size_t list_len = (2 * listed + 3) / 4 * 4;
        write_head(w, STUN_BINDING_ERROR, 8 + 4 + list_len + fingerprint_len, q->id);
        write_unknown(w, q, listed);
    } else {
        size_t mapped_len = endpoint_is_v4(source) ? 12 : 24;
        write_head(w, STUN_BINDING_SUCCESS, mapped_len + fingerprint_len, q->id);
        write_mapped(w, source, q->legacy ? NULL : q->id);
    }
    if (q->fingerprint)
        write_fingerprint(w, start);
}

/* --- client --- */

void stun_write_request(struct writer *w, const uint8_t id[static 12], bool fingerprint)
{
    const uint8_t *start = w->at;
    write_u16(w, STUN_BINDING_REQUEST);
    write_u16(w, fingerprint ? FINGERPRINT_LEN : 0);
    write_u32(w, STUN_COOKIE);
    write_bytes(w, id, 12);
    if (fingerprint)
        write_fingerprint(w, start);
}

/* The address in a (XOR-)MAPPED-ADDRESS; `key` as in write_mapped. */
static bool read_mapped(struct reader r, const uint8_t *key, struct endpoint *ret)
{
    read_u8(&r); /* "MUST be ignored by receivers" (RFC 8489, 14.1) */
    uint8_t family = read_u8(&r);
    uint16_t port = read_u16(&r);
    size_t ip_len = family == 1 ? 4 : 16;
    const uint8_t *bytes = read_bytes(&r, ip_len);
    if (r.bad || (family != 1 && family != 2) || read_left(&r) > 0)
        return false;
    uint8_t ip[16];
    for (size_t i = 0; i < ip_len; i++)
        ip[i] = key ? bytes[i] ^ key[i] : bytes[i];
    *ret = endpoint_of(ip, ip_len, (uint16_t)(key ? port ^ COOKIE_HIGH : port));
    return true;
}

/* Servers of RFC 3489 descent add SOURCE-ADDRESS, CHANGED-ADDRESS and REFLECTED-FROM. */
static bool known_in_response(uint16_t type)
{
    return known_required(type) || type == 0x0004 || type == 0x0005 || type == 0x000B;
}

bool stun_read_mapped(const uint8_t *bytes, size_t len, const uint8_t id[static 12],
                      struct endpoint *ret)
{
    struct reader r = reader_of(bytes, len);
    struct stun_head h;
    struct endpoint plain, xored;
    bool plain_found = false, xored_found = false;
    if (!read_head(&r, &h) || h.type != STUN_BINDING_SUCCESS || h.legacy ||
        memcmp(h.id + 4, id, 12) != 0)
        return false;
    while (read_left(&r) > 0) {
        struct stun_attr a = stun_next(&r);
        if (r.bad || (required(a.type) && !known_in_response(a.type)))
            return false;
        if (a.type == STUN_FINGERPRINT && !fingerprint_right(bytes, a, &r))
            return false;
        if (a.type == STUN_XOR_MAPPED_ADDRESS && !xored_found)
            xored_found = read_mapped(a.value, h.id, &xored);
        if (a.type == STUN_MAPPED_ADDRESS && !plain_found)
            plain_found = read_mapped(a.value, NULL, &plain);
    }
    /* Address translators that rewrite payloads spoil the plain form (RFC 8489, 14.2). */
    if (xored_found)
        *ret = xored;
    else if (plain_found)
        *ret = plain;
    return xored_found || plain_found;
}
