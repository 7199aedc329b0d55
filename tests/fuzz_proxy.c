/* The same header gives the same verdict however it is cut into pieces, nothing behind it matters,
 * and a client that was accepted is accepted again when said in the other version. */
#include <stdio.h>
#include <stdlib.h>

#include "proto/proxy.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static enum proxy_verdict read_growing(const uint8_t *bytes, size_t len, struct proxy_header *ret)
{
    enum proxy_verdict v = PROXY_MORE;
    for (size_t n = 0; n <= len && v == PROXY_MORE; n++) {
        uint8_t *piece = malloc(n + (n == 0));
        CHECK(piece);
        memcpy(piece, bytes, n);
        v = proxy_read(piece, n, ret);
        free(piece);
        CHECK(v != PROXY_MORE || n < PROXY_MAX);
        CHECK(v == PROXY_MORE || v == PROXY_BAD || ret->len == n);
    }
    return v;
}

static void check_again(const struct endpoint *from)
{
    char text[PROXY_V1_MAX + 1], ip[ENDPOINT_TEXT_MAX];
    struct proxy_header got;
    bool v4 = endpoint_is_v4(from);
    endpoint_format(from, ip);
    *strrchr(ip, ':') = '\0';
    if (!v4)
        *strrchr(ip, ']') = '\0';
    int len = snprintf(text, sizeof text, "PROXY TCP%c %s %s %u 443\r\n", v4 ? '4' : '6',
                       v4 ? ip : ip + 1, v4 ? "0.0.0.0" : "::", from->port);
    CHECK(proxy_read((const uint8_t *)text, (size_t)len, &got) == PROXY_FROM);
    CHECK(endpoint_equal(&got.from, from) && got.len == (size_t)len);

    uint8_t binary[64];
    struct writer w = writer_of(binary, sizeof binary);
    write_bytes(&w, "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24", 16);
    write_bytes(&w, from->ip, 16);
    write_bytes(&w, from->ip, 16);
    write_u16(&w, from->port);
    write_u16(&w, 443);
    CHECK(proxy_read(binary, written(&w), &got) == PROXY_FROM);
    CHECK(endpoint_equal(&got.from, from) && got.len == written(&w));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct proxy_header whole = {.len = 0}, grown = {.len = 0};
    enum proxy_verdict v = proxy_read(bytes, len, &whole);
    CHECK(read_growing(bytes, len, &grown) == v);
    if (v == PROXY_MORE || v == PROXY_BAD)
        return 0;
    CHECK(whole.len > 0 && whole.len <= len && whole.len <= PROXY_MAX);
    CHECK(whole.len == grown.len && endpoint_equal(&whole.from, &grown.from));
    if (v == PROXY_FROM)
        check_again(&whole.from);
    return 0;
}
