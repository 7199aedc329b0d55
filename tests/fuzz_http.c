/* The same head gives the same result however it is cut into pieces, and everything in the result
 * lies inside the head. */
#include <stdlib.h>

#include "proto/http.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void check_inside(struct http_text t, const char *head, size_t head_len)
{
    CHECK(t.at >= head && t.at <= head + head_len);
    CHECK(t.len <= (size_t)(head + head_len - t.at));
}

static void check_request(const struct http_request *q, const char *head, size_t len)
{
    CHECK(q->head_len <= len && q->head_len <= HTTP_HEAD_MAX);
    CHECK(memcmp(head + q->head_len - 4, "\r\n\r\n", 4) == 0);
    CHECK(q->path.len > 0 && q->path.at[0] == '/');
    CHECK(q->body_len <= 1 << 20);
    CHECK(q->version_minor == 0 || http_field(q, "Host"));
    CHECK(!http_field(q, "Transfer-Encoding"));
    CHECK(q->field_count <= HTTP_FIELDS_MAX);
    check_inside(q->path, head, q->head_len);
    check_inside(q->query, head, q->head_len);
    for (unsigned i = 0; i < q->field_count; i++) {
        check_inside(q->field[i].name, head, q->head_len);
        check_inside(q->field[i].value, head, q->head_len);
        CHECK(!memchr(q->field[i].value.at, '\n', q->field[i].value.len));
    }
}

/* Grown byte by byte, each time in memory of exactly its size; a long head only near its ends. */
static int read_growing(const char *head, size_t len)
{
    struct http_request q;
    int status = HTTP_MORE;
    for (size_t n = 0; n <= len && status == HTTP_MORE; n++) {
        if (n > 256 && n + 256 < len && n % 61 != 0)
            continue;
        char *piece = malloc(n + (n == 0));
        CHECK(piece);
        memcpy(piece, head, n);
        status = http_read_head(piece, n, &q);
        free(piece);
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct http_request q;
    const char *head = (const char *)bytes;
    int status = http_read_head(head, len, &q);
    CHECK(status == 0 || status == HTTP_MORE || (status >= 400 && status <= 505));
    if (status == 0)
        check_request(&q, head, len);
    CHECK(read_growing(head, len) == status);
    return 0;
}
