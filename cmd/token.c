#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cmd/token.h"

static bool token_read(char ret[static TOKEN_MAX], const char *file, char *error, size_t size)
{
    FILE *f = fopen(file, "re");
    if (!f) {
        snprintf(error, size, "cannot read %s: %s", file, strerror(errno));
        return false;
    }
    size_t len = fread(ret, 1, TOKEN_MAX, f);
    bool whole = len < TOKEN_MAX && !ferror(f);
    fclose(f);
    const char *line_end = memchr(ret, '\n', len); /* the first line, as the beacon reads it */
    if (line_end)
        len = (size_t)(line_end - ret);
    while (whole && len > 0 && strchr(" \t\r", ret[len - 1]))
        len--;
    if (!whole || len == 0) {
        snprintf(error, size, "%s holds no token", file);
        return false;
    }
    ret[len] = '\0';
    return true;
}

/* It is sent in a header field: a line end in it would begin another. */
static bool is_sendable(const char *token)
{
    for (; *token; token++)
        if (*token <= 0x20 || *token >= 0x7f)
            return false;
    return true;
}

/* NULL when it is not set; empty counts as that, too. */
static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

bool token_take(char ret[static TOKEN_MAX], const char *file, char *error, size_t size)
{
    const char *given = file ? NULL : environment("BEACON_ADMIN_TOKEN");
    if (!file)
        file = environment("BEACON_ADMIN_TOKEN_FILE");
    ret[0] = '\0';
    if (file && given) {
        snprintf(error, size, "BEACON_ADMIN_TOKEN and BEACON_ADMIN_TOKEN_FILE are both set");
        return false;
    }
    if (file) {
        if (!token_read(ret, file, error, size))
            return false;
    } else if (given && snprintf(ret, TOKEN_MAX, "%s", given) >= TOKEN_MAX) {
        snprintf(error, size, "the token of BEACON_ADMIN_TOKEN is too long");
        return false;
    }
    if (is_sendable(ret))
        return true;
    snprintf(error, size, "the token has a character that no token may have");
    return false;
}
