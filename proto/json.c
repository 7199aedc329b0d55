#include "proto/json.h"

#include <assert.h>
#include <string.h>

#include "proto/utf8.h"

/* --- texts --- */

static void put(struct json *j, const char *text, size_t len)
{
    /* A failed write sticks to the FILE: the caller asks ferror once, at the end. */
    (void)fwrite(text, 1, len, j->out);
}

/* U+2028 and U+2029 end a line in old JavaScript, where JSON is often pasted. */
static bool is_line_separator(const char *c, size_t len)
{
    return len == 3 && (memcmp(c, "\xe2\x80\xa8", 3) == 0 || memcmp(c, "\xe2\x80\xa9", 3) == 0);
}

/* One valid character. The angle brackets and the ampersand need no escape in JSON, but then the
 * text is harmless in HTML, too. */
static void put_character(struct json *j, const char *c, size_t len)
{
    unsigned char byte = (unsigned char)*c;
    if (byte == '"' || byte == '\\')
        fprintf(j->out, "\\%c", byte);
    else if (byte < 0x20 || byte == 0x7f || byte == '<' || byte == '>' || byte == '&')
        fprintf(j->out, "\\u%04x", byte);
    else if (is_line_separator(c, len))
        fputs(c[2] == '\xa8' ? "\\u2028" : "\\u2029", j->out);
    else
        put(j, c, len);
}

static void put_string(struct json *j, const char *text, size_t len)
{
    putc('"', j->out);
    for (size_t at = 0; at < len;) {
        size_t bad = 0, n = utf8_character(text + at, len - at, &bad);
        if (n > 0)
            put_character(j, text + at, n);
        else
            put(j, "\xef\xbf\xbd", 3); /* U+FFFD */
        at += n > 0 ? n : bad;
    }
    putc('"', j->out);
}

/* --- values --- */

struct json json_of(FILE *out)
{
    return (struct json){.out = out};
}

/* The comma and the name that are due before a value. */
static void begin(struct json *j, const char *name)
{
    if (j->depth == 0) {
        assert(!name);
        assert(!j->begun);
        j->begun = true;
        return;
    }
    unsigned inner = j->depth - 1;
    assert(j->in_object[inner] == (name != NULL));
    if (j->has_value[inner])
        putc(',', j->out);
    j->has_value[inner] = true;
    if (name) {
        put_string(j, name, strlen(name));
        putc(':', j->out);
    }
}

static void nest(struct json *j, const char *name, bool object)
{
    assert(j->depth < JSON_DEPTH_MAX);
    begin(j, name);
    putc(object ? '{' : '[', j->out);
    j->in_object[j->depth] = object;
    j->has_value[j->depth] = false;
    j->depth++;
}

void json_open_object(struct json *j, const char *name)
{
    nest(j, name, true);
}

void json_open_array(struct json *j, const char *name)
{
    nest(j, name, false);
}

void json_end(struct json *j)
{
    assert(j->depth > 0);
    j->depth--;
    putc(j->in_object[j->depth] ? '}' : ']', j->out);
}

void json_text(struct json *j, const char *name, const char *value)
{
    if (value) {
        json_bytes(j, name, value, strlen(value));
        return;
    }
    begin(j, name);
    fputs("null", j->out);
}

void json_bytes(struct json *j, const char *name, const char *bytes, size_t len)
{
    begin(j, name);
    put_string(j, bytes, len);
}

void json_uint(struct json *j, const char *name, uint64_t value)
{
    begin(j, name);
    fprintf(j->out, "%ju", (uintmax_t)value);
}

void json_int(struct json *j, const char *name, int64_t value)
{
    begin(j, name);
    fprintf(j->out, "%jd", (intmax_t)value);
}

void json_bool(struct json *j, const char *name, bool value)
{
    begin(j, name);
    fputs(value ? "true" : "false", j->out);
}

bool json_whole(const struct json *j)
{
    return j->begun && j->depth == 0;
}
