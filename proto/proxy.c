#include "proto/proxy.h"

#include <stdio.h>

/* --- version 1 --- */

/* PROXY TCP4 source destination source-port destination-port CRLF, one blank between any two. */

struct word {
    const char *at;
    size_t len;
};

/* Takes the text up to the next blank, and the blank. */
static struct word take_word(struct word *line)
{
    const char *blank = memchr(line->at, ' ', line->len);
    struct word w = {line->at, blank ? (size_t)(blank - line->at) : line->len};
    size_t used = w.len + (blank != NULL);
    line->at += used;
    line->len -= used;
    return w;
}

/* endpoint_parse is as strict as the specification: no name, no zero in front, no sign; brackets
 * choose the family. An empty address alone would mean any. */
static bool read_words(bool v6, struct word ip, struct word port, struct endpoint *ret)
{
    char text[PROXY_V1_MAX + 4];
    if (ip.len == 0)
        return false;
    snprintf(text, sizeof text, v6 ? "[%.*s]:%.*s" : "%.*s:%.*s", (int)ip.len, ip.at, (int)port.len,
             port.at);
    return endpoint_parse(text, ret);
}

/* Where a client can be: a trusted proxy that says otherwise is broken. */
static bool is_client(const struct endpoint *e)
{
    bool multicast = endpoint_is_v4(e) ? e->ip[12] >> 4 == 0xe : e->ip[0] == 0xff;
    return e->port != 0 && !endpoint_is_any(e) && !multicast;
}

/* The line behind "PROXY TCP4 " or "PROXY TCP6 ", without its end. */
static bool read_line(bool v6, const char *text, size_t len, struct endpoint *ret)
{
    struct word line = {text, len};
    struct word ip = take_word(&line), dest_ip = take_word(&line), port = take_word(&line);
    struct endpoint from, dest;
    if (memchr(text, '\0', len)) /* it would hide the rest of a word */
        return false;
    if (!read_words(v6, ip, port, &from) || !read_words(v6, dest_ip, line, &dest))
        return false;
    if (!is_client(&from))
        return false;
    *ret = from;
    return true;
}

/* What may be missing of the word that the bytes end in: if none of these helps, nothing does. The
 * ones are no zeros because a source must not be unspecified. */
static const char *const missing_of_word[] = {
    "", "1", ":", ".1", ":1", "::", "1.1", "::1", ".1.1", "1.1.1", ".1.1.1", "1.1.1.1",
};

/* The shortest of the words behind it, by how many blanks were seen. */
static const char *const missing_words[2][4] = {
    {" 1.1.1.1 1 1", " 1 1", " 1", ""},
    {" :: 1 1", " 1 1", " 1", ""},
};

/* Room for what read_line reads. */
enum { WORDS_MAX = PROXY_V1_MAX - (sizeof "PROXY TCP4 " - 1) - (sizeof "\r\n" - 1) };

/* Whether something can be appended to `line` that read_line would take. */
static bool can_grow(bool v6, const char *line, size_t len)
{
    unsigned blanks = 0;
    for (size_t i = 0; i < len; i++)
        blanks += line[i] == ' ';
    for (size_t i = 0; blanks <= 3 && i < sizeof missing_of_word / sizeof *missing_of_word; i++) {
        char grown[2 * PROXY_V1_MAX];
        struct endpoint from;
        int more = snprintf(grown + len, sizeof grown - len, "%s%s", missing_of_word[i],
                            missing_words[v6][blanks]);
        memcpy(grown, line, len);
        if (len + (size_t)more <= WORDS_MAX && read_line(v6, grown, len + (size_t)more, &from))
            return true;
    }
    return false;
}

/* A line without its CRLF. `ended`: its CR was seen. PROXY_MORE: it can still become a good one. */
static enum proxy_verdict judge_line(struct word line, bool ended, struct endpoint *ret)
{
    static const char *const names[] = {"PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"};
    for (unsigned i = 0; i < 3; i++) {
        size_t len = strlen(names[i]);
        if (memcmp(line.at, names[i], line.len < len ? line.len : len) != 0)
            continue;
        if (line.len < len)
            return ended ? PROXY_BAD : PROXY_MORE;
        const char *rest = line.at + len;
        size_t rest_len = line.len - len;
        if (i == 2) /* whatever stands behind "UNKNOWN" is to be ignored */
            return rest_len == 0 || *rest == ' ' ? PROXY_LOCAL : PROXY_BAD;
        if (!ended)
            return can_grow(i == 1, rest, rest_len) ? PROXY_MORE : PROXY_BAD;
        return read_line(i == 1, rest, rest_len, ret) ? PROXY_FROM : PROXY_BAD;
    }
    return PROXY_BAD;
}

/* The line ends at the first CRLF, and in PROXY_V1_MAX bytes. */
static enum proxy_verdict read_v1(const uint8_t *bytes, size_t len, struct proxy_header *ret)
{
    const char *text = (const char *)bytes;
    size_t seen = len < PROXY_V1_MAX ? len : PROXY_V1_MAX;
    const char *end = memmem(text, seen, "\r\n", 2);
    bool half_end = !end && text[seen - 1] == '\r';
    struct word line = {text, end ? (size_t)(end - text) : seen - half_end};
    struct endpoint from = {.port = 0};
    if (line.len + 2 > PROXY_V1_MAX)
        return PROXY_BAD;
    enum proxy_verdict v = judge_line(line, end || half_end, &from);
    if (v == PROXY_MORE || v == PROXY_BAD)
        return v;
    if (!end)
        return PROXY_MORE;
    *ret = (struct proxy_header){.from = from, .len = line.len + 2};
    return v;
}

/* --- version 2 --- */

/*   0                   1                   2                   3
 *   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *  +---------------------------------------------------------------+
 *  |          signature: 0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a       |
 *  +-------+-------+-------+-------+-------------------------------+
 *  | ver 2 |command| family| proto |  bytes of all that follows    |
 *  +-------+-------+-------+-------+-------------------------------+
 *  |  source address, destination address: 4 or 16 bytes each      |
 *  +-------------------------------+-------------------------------+
 *  |          source port          |       destination port        |
 *  +---------------+---------------+---------------+---------------+
 *  |     type      |            length             |  value ...
 *  +---------------+-------------------------------+-------------- */

static const uint8_t signature[] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                    0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};
enum {
    V2_HEAD_LEN = 16,
    V2_LOCAL = 0x20, /* version and command in one byte */
    V2_PROXY = 0x21,
    V2_FAMILY_MAX = 3,   /* unspecified, IPv4, IPv6, UNIX */
    V2_PROTOCOL_MAX = 2, /* unspecified, stream, datagram */
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
    TLV_HEAD_LEN = 3,
    TLV_CRC32C = 3,
    TLV_CRC32C_LEN = 4,
};

/* CRC-32C (Castagnoli; RFC 9260, appendix A), bit by bit: it runs once a connection. Begins and
 * goes on with the value before, which is all ones at first and inverted at last. */
static uint32_t crc32c(uint32_t crc, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return crc;
}

/* The checksum is over the whole header, with zeros in its own place. */
static bool is_sum_right(const uint8_t *header, size_t len, size_t sum_at)
{
    static const uint8_t zeros[TLV_CRC32C_LEN];
    struct reader sum = reader_of(header + sum_at, TLV_CRC32C_LEN);
    size_t behind = sum_at + TLV_CRC32C_LEN;
    uint32_t crc = crc32c(UINT32_MAX, header, sum_at);
    crc = crc32c(crc, zeros, sizeof zeros);
    crc = crc32c(crc, header + behind, len - behind);
    return ~crc == read_u32(&sum);
}

/* TLVs from `at` to `end`, of which `len` bytes are here. Each is judged as soon as its length is
 * known. Two checksums could not both be over zeros only in their own place. */
static enum proxy_verdict read_tlvs(const uint8_t *bytes, size_t len, size_t at, size_t end)
{
    size_t sum_at = 0;
    while (at < end) {
        if (end - at < TLV_HEAD_LEN)
            return PROXY_BAD;
        if (len < at + TLV_HEAD_LEN)
            return PROXY_MORE;
        struct reader r = reader_of(bytes + at, TLV_HEAD_LEN);
        uint8_t type = read_u8(&r);
        size_t value_len = read_u16(&r);
        at += TLV_HEAD_LEN;
        if (value_len > end - at)
            return PROXY_BAD;
        if (type == TLV_CRC32C && (value_len != TLV_CRC32C_LEN || sum_at != 0))
            return PROXY_BAD;
        if (type == TLV_CRC32C)
            sum_at = at;
        at += value_len;
    }
    if (len < end)
        return PROXY_MORE;
    return sum_at == 0 || is_sum_right(bytes, end, sum_at) ? PROXY_FROM : PROXY_BAD;
}

/* Ones stand for bytes that are still to come, so that what is here already can be judged. */
static struct endpoint read_source(const uint8_t *block, size_t len, size_t ip_len)
{
    uint8_t known[2 * 16 + 2 * 2];
    memset(known, 1, sizeof known);
    memcpy(known, block, len < sizeof known ? len : sizeof known);
    struct reader r = reader_of(known, sizeof known);
    const uint8_t *ip = read_bytes(&r, ip_len);
    read_bytes(&r, ip_len); /* the destination: ours */
    return endpoint_of(ip, ip_len, read_u16(&r));
}

static enum proxy_verdict read_tcp(const uint8_t *bytes, size_t len, size_t end, size_t ip_len,
                                   struct endpoint *ret)
{
    size_t tlvs_at = V2_HEAD_LEN + 2 * ip_len + 2 * 2;
    struct endpoint from = read_source(bytes + V2_HEAD_LEN, len - V2_HEAD_LEN, ip_len);
    if (end < tlvs_at || !is_client(&from))
        return PROXY_BAD;
    *ret = from;
    return read_tlvs(bytes, len, tlvs_at, end);
}

/* Command, family and length, as far as they are here. */
static bool is_head_good(const uint8_t *bytes, size_t len)
{
    if (memcmp(bytes, signature, len < sizeof signature ? len : sizeof signature) != 0)
        return false;
    if (len > 12 && bytes[12] != V2_LOCAL && bytes[12] != V2_PROXY)
        return false;
    if (len > 13 && bytes[12] == V2_PROXY &&
        (bytes[13] >> 4 > V2_FAMILY_MAX || (bytes[13] & 0xf) > V2_PROTOCOL_MAX))
        return false;
    return len <= 14 || bytes[14] << 8 <= PROXY_MAX - V2_HEAD_LEN;
}

static enum proxy_verdict read_v2(const uint8_t *bytes, size_t len, struct proxy_header *ret)
{
    if (!is_head_good(bytes, len))
        return PROXY_BAD;
    if (len < V2_HEAD_LEN)
        return PROXY_MORE;
    struct reader r = reader_of(bytes + 14, 2);
    size_t end = V2_HEAD_LEN + (size_t)read_u16(&r);
    if (end > PROXY_MAX)
        return PROXY_BAD;
    struct endpoint from = {.port = 0};
    enum proxy_verdict v = len < end ? PROXY_MORE : PROXY_LOCAL;
    if (bytes[12] == V2_PROXY && (bytes[13] == V2_TCP4 || bytes[13] == V2_TCP6))
        v = read_tcp(bytes, len, end, bytes[13] == V2_TCP4 ? 4 : 16, &from);
    if (v == PROXY_FROM || v == PROXY_LOCAL)
        *ret = (struct proxy_header){.from = from, .len = end};
    return v;
}

enum proxy_verdict proxy_read(const uint8_t *bytes, size_t len, struct proxy_header *ret)
{
    if (len == 0)
        return PROXY_MORE;
    return *bytes == *signature ? read_v2(bytes, len, ret) : read_v1(bytes, len, ret);
}
