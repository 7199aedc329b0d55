#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/words.h"
#include "server/options.h"
#include "wss/base64.h"
#include "wss/keys_file.h"

/* "1 ", the base64 of 32 bytes and a newline: no key takes less. */
enum { KEY_TEXT_LEN = 44, ENTRY_TEXT_MIN = 2 + KEY_TEXT_LEN + 1 };

static const char bad_id[] = "not a node id (1 to 4294967295)";

/* One file while it is read. */
struct reading {
    const char *path;
    unsigned line;
    struct keys_file *file;
    char *error;
};

__attribute__((format(printf, 2, 3))) static bool fail(char *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error, KEYS_ERROR_MAX, format, args);
    va_end(args);
    return false;
}

static bool fail_at(const struct reading *r, struct token value, const char *why)
{
    char text[OPTION_SHOWN_MAX + 1], shown[OPTION_SHOWN_MAX];
    size_t len = value.len < OPTION_SHOWN_MAX ? value.len : OPTION_SHOWN_MAX;
    memcpy(text, value.at, len);
    text[len] = '\0';
    return fail(r->error, "%s:%u: %s: %s", r->path, r->line, text_show(text, shown), why);
}

/* --- one line --- */

static bool read_id(struct token t, uint32_t *ret)
{
    uint64_t id = 0;
    if (t.len > 10 || t.at[0] == '0')
        return false;
    for (size_t i = 0; i < t.len; i++) {
        if (t.at[i] < '0' || t.at[i] > '9')
            return false;
        id = id * 10 + (uint64_t)(t.at[i] - '0');
    }
    if (id > UINT32_MAX)
        return false;
    *ret = (uint32_t)id;
    return true;
}

/* The y coordinates of the points of order 1, 2, 4 and 8, little-endian, without the sign of x.
 * Under such a key one signature is good for many messages. */
static bool key_is_small_order(const uint8_t y[static MSG_KEY_LEN])
{
    static const uint8_t small[][MSG_KEY_LEN] = {
        {0},
        {1},
        {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4,
         0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6,
         0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b,
         0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39,
         0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
    };
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (memcmp(y, small[i], MSG_KEY_LEN) == 0)
            return true;
    return false;
}

/* y < 2^255 - 19. */
static bool key_is_canonical(const uint8_t y[static MSG_KEY_LEN])
{
    if (y[31] != 0x7f || y[0] < 0xed)
        return true;
    for (size_t i = 1; i < 31; i++)
        if (y[i] != 0xff)
            return true;
    return false;
}

/* NULL: good. Otherwise why not. */
static const char *key_complaint(const struct keys_file *f, const uint8_t key[static MSG_KEY_LEN])
{
    uint8_t y[MSG_KEY_LEN];
    memcpy(y, key, sizeof y);
    y[31] &= 0x7f;
    if (sodium_is_zero(key, MSG_KEY_LEN))
        return "the key is all zero";
    if (!key_is_canonical(y) || key_is_small_order(y))
        return "a key of small order, or not canonical";
    if (f->count < KEYS_FILE_POINTS && crypto_core_ed25519_is_valid_point(key) != 1)
        return "not an Ed25519 public key";
    return NULL;
}

static bool read_line(struct reading *r, struct token line)
{
    struct keys_entry e = {.line = r->line};
    if (line.len > 0 && line.at[line.len - 1] == '\r')
        line.len--;
    if (line.len > KEYS_FILE_LINE_MAX)
        return fail_at(r, line, "the line is too long");
    struct token id = next_token(&line);
    if (is_end(id))
        return true;
    if (!read_id(id, &e.node_id))
        return fail_at(r, id, bad_id);
    struct token key = next_token(&line);
    if (is_end(key))
        return fail_at(r, id, "its key is missing");
    if (!base64_read(key.at, key.len, e.key, sizeof e.key))
        return fail_at(r, key, "not the base64 of 32 bytes");
    const char *complaint = key_complaint(r->file, e.key);
    if (complaint)
        return fail_at(r, key, complaint);
    struct token rest = next_token(&line);
    if (!is_end(rest))
        return fail_at(r, rest, "text behind the key");
    r->file->entry[r->file->count++] = e;
    return true;
}

/* --- one text --- */

static bool read_lines(struct reading *r, const char *text, size_t len)
{
    while (len > 0) {
        const char *newline = memchr(text, '\n', len);
        size_t line_len = newline ? (size_t)(newline - text) : len;
        r->line++;
        if (!read_line(r, (struct token){.at = text, .len = line_len}))
            return false;
        line_len += newline != NULL;
        text += line_len;
        len -= line_len;
    }
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct keys_entry *x = a, *y = b;
    if (x->node_id != y->node_id)
        return x->node_id < y->node_id ? -1 : 1;
    return x->line < y->line ? -1 : 1;
}

/* Puts the entries in order, which most files are in already. False: an id comes twice. */
static bool sort(const struct reading *r)
{
    struct keys_entry *e = r->file->entry;
    unsigned n = r->file->count, i = 1;
    while (i < n && e[i - 1].node_id < e[i].node_id)
        i++;
    if (i >= n)
        return true;
    qsort(e, n, sizeof *e, compare);
    for (i = 1; i < n; i++)
        if (e[i - 1].node_id == e[i].node_id)
            return fail(r->error, "%s:%u: %u: already on line %u", r->path, e[i].line, e[i].node_id,
                        e[i - 1].line);
    return true;
}

/* Room for as many keys as `len` bytes can hold. */
static struct keys_file *file_new(size_t len)
{
    struct keys_file *f = malloc(sizeof *f + (len / ENTRY_TEXT_MIN + 1) * sizeof f->entry[0]);
    if (f)
        f->count = 0;
    return f;
}

struct keys_file *keys_file_parse(const char *path, const char *text, size_t len,
                                  char error[static KEYS_ERROR_MAX])
{
    struct reading r = {.path = path, .error = error};
    if (len > KEYS_FILE_MAX) {
        fail(error, "%s: longer than %d MiB", path, KEYS_FILE_MAX >> 20);
        return NULL;
    }
    r.file = file_new(len);
    if (!r.file) {
        fail(error, "%s: no memory", path);
        return NULL;
    }
    if (!read_lines(&r, text, len) || !sort(&r)) {
        free(r.file);
        return NULL;
    }
    struct keys_file *fit = realloc(r.file, sizeof *fit + r.file->count * sizeof r.file->entry[0]);
    return fit ? fit : r.file; /* it only shrinks */
}

/* --- one file --- */

/* Reads until the end, as a file may grow meanwhile; one byte beyond the limit shows that it is too
 * long. The bytes or NULL with errno. */
static char *read_all(int fd, size_t size, size_t *ret_len)
{
    size_t capacity = size + 1, len = 0;
    char *text = malloc(capacity);
    while (text) {
        ssize_t n = read(fd, text + len, capacity - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            break;
        len += (size_t)n;
        if (n == 0 || len == KEYS_FILE_MAX + (size_t)1) {
            *ret_len = len;
            return text;
        }
        if (len < capacity)
            continue;
        capacity = capacity < KEYS_FILE_MAX / 2 ? capacity * 2 : KEYS_FILE_MAX + (size_t)1;
        char *grown = realloc(text, capacity);
        if (!grown)
            break;
        text = grown;
    }
    int err = errno; /* free may change it */
    free(text);
    errno = err;
    return NULL;
}

static struct keys_file *read_open_file(const char *path, int fd, char error[static KEYS_ERROR_MAX])
{
    struct stat s;
    size_t len = 0;
    char *text = NULL;
    if (fstat(fd, &s) < 0)
        fail(error, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(s.st_mode))
        fail(error, "%s: not a regular file", path);
    else if (s.st_size > KEYS_FILE_MAX)
        fail(error, "%s: longer than %d MiB", path, KEYS_FILE_MAX >> 20);
    else if (text = read_all(fd, (size_t)s.st_size, &len), !text)
        fail(error, "%s: cannot read: %s", path, strerror(errno));
    if (!text)
        return NULL;
    struct keys_file *f = keys_file_parse(path, text, len, error);
    free(text);
    return f;
}

struct keys_file *keys_file_read(const char *path, char error[static KEYS_ERROR_MAX])
{
    if (path[0] == '\0')
        return keys_file_parse("", "", 0, error);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    if (fd < 0) {
        fail(error, "%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    struct keys_file *f = read_open_file(path, fd, error);
    close(fd);
    return f;
}

const uint8_t *keys_file_find(const struct keys_file *f, uint32_t node_id)
{
    size_t low = 0, high = f->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (f->entry[middle].node_id == node_id)
            return f->entry[middle].key;
        if (f->entry[middle].node_id < node_id)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

int keys_check_file(const char *path, const char *text, size_t len,
                    char error[static KEYS_ERROR_MAX])
{
    struct keys_file *f = keys_file_parse(path, text, len, error);
    if (!f)
        return -1;
    int count = (int)f->count;
    free(f);
    return count;
}
