/* Whatever the bytes, the output is JSON for another parser, which reads the same text, with U+FFFD
 * for what is not UTF-8; and none of it could end a script or an attribute of HTML. */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include "proto/json.h"

#define CHECK(fact) ((fact) ? (void)0 : abort())

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { LEN_MAX = 4096 };

/* How many bytes a character has that begins with this one; 0: none does. */
static size_t length_of(uint8_t first)
{
    return first < 0x80   ? 1
           : first < 0xc0 ? 0
           : first < 0xe0 ? 2
           : first < 0xf0 ? 3
           : first < 0xf8 ? 4
                          : 0;
}

/* Whether the first `n` bytes begin a character, by arithmetic: they stand for a range of code
 * points, and some of it must be allowed for the length. */
static bool is_start(const uint8_t *bytes, size_t n)
{
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = length_of(bytes[0]);
    if (len < n)
        return false;
    uint32_t low = len == 1 ? bytes[0] : bytes[0] & (0x7fu >> len);
    uint32_t high = low;
    for (size_t i = 1; i < len; i++) {
        if (i < n && bytes[i] >> 6 != 2)
            return false;
        low = low << 6 | (i < n ? bytes[i] & 0x3f : 0);
        high = high << 6 | (i < n ? bytes[i] & 0x3f : 0x3f);
    }
    bool surrogates = low >= 0xd800 && high <= 0xdfff;
    return high >= lowest[len] && low <= 0x10ffff && !surrogates;
}

static size_t repair(const uint8_t *bytes, size_t len, char *ret)
{
    size_t used = 0;
    for (size_t at = 0, n; at < len; at += n) {
        for (n = 0; at + n < len && is_start(bytes + at, n + 1);)
            n++;
        bool whole = n > 0 && n == length_of(bytes[at]);
        memcpy(ret + used, whole ? (const char *)bytes + at : "\xef\xbf\xbd", whole ? n : 3);
        used += whole ? n : 3;
        n += n == 0;
    }
    return used;
}

static size_t write_all(const char *text, size_t len, const char *name, char **ret)
{
    size_t size = 0;
    FILE *out = open_memstream(ret, &size);
    CHECK(out);
    struct json j = json_of(out);
    json_open_object(&j, NULL);
    json_bytes(&j, "value", text, len);
    json_open_array(&j, name);
    json_text(&j, NULL, name);
    json_end(&j);
    json_end(&j);
    CHECK(json_whole(&j));
    CHECK(fclose(out) == 0);
    return size;
}

static bool is_same(const json_t *got, const char *text, size_t len)
{
    return json_string_length(got) == len && memcmp(json_string_value(got), text, len) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    char name[LEN_MAX + 2], want[3 * LEN_MAX + 1], want_name[3 * LEN_MAX + 4], *text = NULL;
    json_error_t error;
    if (len > LEN_MAX)
        return -1;
    name[0] = '/'; /* never the name of the other member */
    memcpy(name + 1, bytes, len);
    name[len + 1] = '\0';
    size_t size = write_all((const char *)bytes, len, name, &text);
    CHECK(!memchr(text, '<', size) && !memchr(text, '&', size) && !memchr(text, '\n', size));

    json_t *root = json_loadb(text, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    CHECK(root && json_object_size(root) == 2);
    CHECK(is_same(json_object_get(root, "value"), want, repair(bytes, len, want)));
    size_t name_len = repair((const uint8_t *)name, strlen(name), want_name);
    want_name[name_len] = '\0';
    const json_t *array = json_object_get(root, want_name);
    CHECK(json_array_size(array) == 1);
    CHECK(is_same(json_array_get(array, 0), want_name, name_len));
    json_decref(root);
    free(text);
    return 0;
}
