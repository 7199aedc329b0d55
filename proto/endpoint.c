#include "proto/endpoint.h"

#include <arpa/inet.h>
#include <stdio.h>

/* A block of addresses and what it means: one row of the IANA special-purpose registries. */
struct block {
    uint8_t prefix[16];
    uint8_t bits;
    uint8_t scope;
};

/* RFC 6890 and its updates. 192.0.0.0/24 holds two anycast services that are reachable, but no node
 * lives on either. The blocks are disjoint, so their order does not matter. */
static const struct block blocks4[] = {
    {{0}, 8, SCOPE_NEVER},               /* "this network" (RFC 791) */
    {{10}, 8, SCOPE_PRIVATE},            /* RFC 1918 */
    {{100, 64}, 10, SCOPE_PRIVATE},      /* carrier-grade NAT (RFC 6598) */
    {{127}, 8, SCOPE_LOOPBACK},          /* RFC 1122 */
    {{169, 254}, 16, SCOPE_LINK},        /* RFC 3927; cloud metadata lives here too */
    {{172, 16}, 12, SCOPE_PRIVATE},      /* RFC 1918 */
    {{192, 0, 0}, 24, SCOPE_PRIVATE},    /* protocol assignments (RFC 6890) */
    {{192, 0, 2}, 24, SCOPE_PRIVATE},    /* documentation (RFC 5737) */
    {{192, 168}, 16, SCOPE_PRIVATE},     /* RFC 1918 */
    {{198, 18}, 15, SCOPE_PRIVATE},      /* benchmarking (RFC 2544) */
    {{198, 51, 100}, 24, SCOPE_PRIVATE}, /* documentation (RFC 5737) */
    {{203, 0, 113}, 24, SCOPE_PRIVATE},  /* documentation (RFC 5737) */
    {{224}, 4, SCOPE_NEVER},             /* multicast */
    {{240}, 4, SCOPE_NEVER},             /* reserved, and the broadcast address */
};

/* The first match wins, so a block stands above the one that contains it. Global unicast is
 * 2000::/3 alone; what IANA has not assigned outside it is reserved, hence the last row. That row
 * also takes the deprecated ::/96 (IPv4-compatible), where automatic tunnels would unpack the
 * embedded IPv4 address, and the discard prefix 100::/64. */
static const struct block blocks6[] = {
    {{[15] = 1}, 128, SCOPE_LOOPBACK},
    {{0x00, 0x64, 0xff, 0x9b}, 96, SCOPE_GLOBAL},              /* NAT64 (RFC 6052) */
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, SCOPE_PRIVATE}, /* NAT64, local use (RFC 8215) */
    {{0x20, 0x01}, 32, SCOPE_GLOBAL},                          /* Teredo (RFC 4380) */
    {{0x20, 0x01}, 23, SCOPE_PRIVATE},                         /* protocol assignments */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, SCOPE_PRIVATE},             /* documentation (RFC 3849) */
    {{0x3f, 0xff}, 20, SCOPE_PRIVATE},                         /* documentation (RFC 9637) */
    {{0x20}, 3, SCOPE_GLOBAL},                                 /* global unicast (RFC 4291) */
    {{0xfc}, 7, SCOPE_PRIVATE},                                /* unique local (RFC 4193) */
    {{0xfe, 0x80}, 10, SCOPE_LINK},                            /* RFC 4291 */
    {{0xfe, 0xc0}, 10, SCOPE_PRIVATE},                         /* site-local, deprecated */
    {{0}, 0, SCOPE_NEVER},
};

/* Where a transition form keeps its IPv4 address (IPv4-mapped is no transition: it is how IPv4 is
 * stored here, and is looked up as IPv4 alone). 64:ff9b:1::/48 is read as its operators use it,
 * with a /96 inside; its own scope is private whatever the last 32 bits say. */
struct embedding {
    uint8_t prefix[16];
    uint8_t bits;
    uint8_t at;   /* offset of the IPv4 address */
    uint8_t flip; /* XORed on each of its bytes */
};

static const struct embedding embeddings[] = {
    {{0x00, 0x64, 0xff, 0x9b}, 96, 12, 0},
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, 12, 0},
    {{0x20, 0x02}, 16, 2, 0},     /* 6to4 (RFC 3056) */
    {{0x20, 0x01}, 32, 4, 0},     /* Teredo server */
    {{0x20, 0x01}, 32, 12, 0xff}, /* Teredo client, stored inverted */
};

static bool in_prefix(const uint8_t *ip, const uint8_t *prefix, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(ip, prefix, whole) != 0)
        return false;
    return rest == 0 || (ip[whole] ^ prefix[whole]) >> (8 - rest) == 0;
}

static uint32_t word_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* Compares words, not bytes: this one is asked for every source. */
static enum ip_scope scope4(const uint8_t *ip)
{
    uint32_t word = word_at(ip);
    for (size_t i = 0; i < sizeof blocks4 / sizeof *blocks4; i++) {
        if ((word ^ word_at(blocks4[i].prefix)) >> (32 - blocks4[i].bits) == 0)
            return (enum ip_scope)blocks4[i].scope;
    }
    return SCOPE_GLOBAL;
}

static enum ip_scope scope6(const uint8_t *ip)
{
    const struct block *b = blocks6;
    while (!in_prefix(ip, b->prefix, b->bits)) /* ends: the last row matches anything */
        b++;
    return (enum ip_scope)b->scope;
}

/* The enum is ordered by how little an address is good for, so the worse scope is the larger one.
 */
enum ip_scope ip_scope(const uint8_t ip[static 16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(ip, mapped, sizeof mapped) == 0)
        return scope4(ip + 12);
    enum ip_scope worst = scope6(ip);
    for (size_t i = 0; i < sizeof embeddings / sizeof *embeddings; i++) {
        const struct embedding *e = &embeddings[i];
        if (!in_prefix(ip, e->prefix, e->bits))
            continue;
        uint8_t ip4[4];
        for (size_t k = 0; k < sizeof ip4; k++)
            ip4[k] = ip[e->at + k] ^ e->flip;
        enum ip_scope inner = scope4(ip4);
        if (inner > worst)
            worst = inner;
    }
    return worst;
}

struct endpoint endpoint_of(const uint8_t *ip, size_t ip_len, uint16_t port)
{
    assert(ip_len == 4 || ip_len == 16);
    struct endpoint e = {.port = port};
    if (ip_len == 4)
        e.ip[10] = e.ip[11] = 0xff;
    memcpy(e.ip + sizeof e.ip - ip_len, ip, ip_len);
    return e;
}

struct endpoint endpoint_prefix(const struct endpoint *e, unsigned bits)
{
    if (endpoint_is_v4(e)) {
        assert(bits <= 32);
        bits += 96;
    }
    assert(bits <= 128);
    struct endpoint prefix = {.port = 0};
    memcpy(prefix.ip, e->ip, bits / 8);
    if (bits % 8 > 0)
        prefix.ip[bits / 8] = (uint8_t)(e->ip[bits / 8] & 0xff00 >> bits % 8);
    return prefix;
}

bool endpoint_same_prefix(const struct endpoint *a, const struct endpoint *b, unsigned bits)
{
    if (endpoint_is_v4(a) != endpoint_is_v4(b))
        return false;
    struct endpoint prefix_a = endpoint_prefix(a, bits), prefix_b = endpoint_prefix(b, bits);
    return endpoint_same_ip(&prefix_a, &prefix_b);
}

const char *endpoint_format(const struct endpoint *e, char text[static ENDPOINT_TEXT_MAX])
{
    char ip[INET6_ADDRSTRLEN];
    bool v4 = endpoint_is_v4(e);
    if (!inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? e->ip + 12 : e->ip, ip, sizeof ip))
        ip[0] = '\0'; /* cannot happen: the family is known and the text fits */
    snprintf(text, ENDPOINT_TEXT_MAX, v4 ? "%s:%u" : "[%s]:%u", ip, (unsigned)e->port);
    return text;
}

/* Decimal digits only, no sign, no leading zero (elsewhere that means octal), at most 65535. */
static bool parse_port(const char *text, uint16_t *ret)
{
    unsigned port = 0;
    size_t len = strlen(text);
    if (len == 0 || len > 5 || (text[0] == '0' && len > 1))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    if (port > UINT16_MAX)
        return false;
    *ret = (uint16_t)port;
    return true;
}

static bool parse_ip(int family, const char *text, struct endpoint *ret)
{
    uint8_t ip[16];
    if (inet_pton(family, text, ip) != 1)
        return false;
    *ret = endpoint_of(ip, family == AF_INET ? 4 : 16, 0);
    return true;
}

/* `colon` is the one before the port: a bare IPv6 address has others, so its brackets are required.
 */
static bool parse_host(const char *text, const char *colon, struct endpoint *ret)
{
    char host[ENDPOINT_TEXT_MAX];
    size_t len = (size_t)(colon - text);
    if (len == 0) {
        *ret = (struct endpoint){.port = 0};
        return true;
    }
    bool brackets = text[0] == '[' && colon[-1] == ']' && len >= 2;
    if (brackets) {
        text++;
        len -= 2;
    }
    if (len >= sizeof host)
        return false;
    memcpy(host, text, len);
    host[len] = '\0';
    return parse_ip(brackets ? AF_INET6 : AF_INET, host, ret);
}

bool endpoint_parse(const char *text, struct endpoint *ret)
{
    struct endpoint e;
    uint16_t port;
    const char *colon = strrchr(text, ':');
    if (!colon || !parse_port(colon + 1, &port) || !parse_host(text, colon, &e))
        return false;
    e.port = port;
    *ret = e;
    return true;
}

bool endpoint_parse_ip(const char *text, struct endpoint *ret)
{
    return parse_ip(AF_INET, text, ret) || parse_ip(AF_INET6, text, ret);
}
