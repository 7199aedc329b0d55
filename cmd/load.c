#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>
#include "cmd/load.h"
#include "cmd/log.h"

extern char **environ;

enum { FILE_MAX_BYTES = 1 << 20 };

/* A whole small file. NULL with errno. */
static char *file_read(const char *path, size_t *ret_len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* a FIFO must not hang us */
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        errno = ENOTSUP;
        return NULL;
    }
    char *text = malloc(FILE_MAX_BYTES);
    size_t len = 0;
    ssize_t n = text ? 1 : -1;
    while (n > 0 && len < FILE_MAX_BYTES) {
        n = read(fd, text + len, FILE_MAX_BYTES - len);
        len += n > 0 ? (size_t)n : 0;
    }
    int err = n < 0 ? errno : n > 0 ? EFBIG : 0;
    close(fd);
    if (err) {
        free(text);
        errno = err;
        return NULL;
    }
    *ret_len = len;
    return text;
}

static void environment_unknown(const char *name)
{
    log_line(LOG_WARN, "config", "environment variable of no option", "name=%s", log_quote(name));
}

/* The beginning of a secret's file; no copy of it stays behind. */
static const char *secret_read(const char *path, char *text, size_t capacity, size_t *ret_len)
{
    size_t len;
    char *whole = file_read(path, &len);
    if (!whole)
        return errno == ENOTSUP ? "not a regular file" : strerror(errno);
    *ret_len = len < capacity ? len : capacity;
    memcpy(text, whole, *ret_len);
    explicit_bzero(whole, len);
    free(whole);
    return NULL;
}

static bool config_load_file(struct config *c, const char *path, struct config_error *error)
{
    size_t len;
    char *text = file_read(path, &len);
    if (!text) {
        snprintf(error->text, sizeof error->text, "%s: %s", path,
                 errno == ENOTSUP ? "not a regular file" : strerror(errno));
        return false;
    }
    bool ok = config_read(c, path, text, len, error);
    free(text);
    return ok;
}

int config_load(struct config *c, int argc, char **argv, struct config_error *error)
{
    const struct config_environment environment = {environ, environment_unknown, secret_read};
    config_init(c);
    error->usage = false;
    const char *path = config_find_file(argc, argv, environ);
    if (path && *path && !config_load_file(c, path, error))
        return EX_CONFIG;
    if (!config_read_environment(c, &environment, error))
        return EX_CONFIG;
    if (!config_read_flags(c, argc, argv, error))
        return error->usage ? EXIT_USAGE : EX_CONFIG;
    return config_finish(c, error) ? 0 : EX_CONFIG;
}
