#include "cmd/ctl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include "cmd/show.h"

enum { RELOAD_POLL_MS = 100 };

int complain(int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("beaconctl: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

/* --- asking --- */

int ctl_unreachable(const struct ctl *c, int code)
{
    complain(code, "%s", c->client.error);
    if (code == EX_UNAVAILABLE)
        fputs("hint: is the beacon running? --admin says where it listens (its option admin)\n",
              stderr);
    if (code == EX_UNAVAILABLE && c->client.tls)
        fputs("hint: --ca names a file of certificates to believe\n", stderr);
    if (code == EX_NOPERM)
        fputs("hint: try it as root, or in the group that may enter the socket's directory\n",
              stderr);
    return code;
}

/* What a refusal says of itself. */
static int refused(const struct answer *a)
{
    json_t *body = json_loadb(a->body, a->len, 0, NULL);
    const char *why = show_text(body, "error");
    fprintf(stderr, "beaconctl: refused with %d", a->status);
    fputs(*why ? ": " : "", stderr);
    show_clean(stderr, why);
    fputc('\n', stderr);
    json_decref(body);
    if (a->status == 401)
        fputs("hint: the option admin-token of the beacon; give it by --token-file or in "
              "BEACON_ADMIN_TOKEN\n",
              stderr);
    return a->status == 401 ? EX_NOPERM : EXIT_FAILURE;
}

int ctl_ask(struct ctl *c, const char *path, const char *body, json_t **ret, char **ret_text)
{
    struct answer a;
    int code = client_ask(&c->client, path, body, &a);
    if (code != 0)
        return ctl_unreachable(c, code);
    if (a.status >= 300) {
        code = refused(&a);
        free(a.body);
        return code;
    }
    json_error_t error;
    json_t *value = json_loadb(a.body, a.len, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(value)) {
        json_decref(value);
        free(a.body);
        return complain(EXIT_FAILURE, "what came from %s is not a beacon's answer", c->client.host);
    }
    *ret = value;
    if (ret_text)
        *ret_text = a.body;
    else
        free(a.body);
    return 0;
}

int ctl_show(struct ctl *c, const char *path, void (*show)(FILE *out, const json_t *))
{
    json_t *value;
    char *text;
    int code = ctl_ask(c, path, NULL, &value, &text);
    if (code != 0)
        return code;
    if (c->json)
        fputs(text, stdout);
    else
        show(stdout, value);
    json_decref(value);
    free(text);
    return 0;
}

int ctl_tell(struct ctl *c, const char *path, const char *body, const char *said)
{
    json_t *value;
    char *text;
    int code = ctl_ask(c, path, body, &value, &text);
    if (code != 0)
        return code;
    fputs(c->json ? text : said, stdout);
    json_decref(value);
    free(text);
    return 0;
}

/* --- reload --- */

/* How the reload `sequence` ended. 0 or an exit code; *ret_done is false while it has not. */
static int reload_result(struct ctl *c, int64_t sequence, bool *ret_done)
{
    json_t *status;
    int code = ctl_ask(c, "/v1/status", NULL, &status, NULL);
    if (code != 0)
        return code;
    const json_t *reload = json_object_get(status, "reload");
    bool ok = json_is_true(json_object_get(reload, "ok"));
    *ret_done = show_number(reload, "sequence") >= sequence;
    if (*ret_done && c->json) {
        json_dumpf(reload, stdout, JSON_COMPACT);
        fputc('\n', stdout);
    } else if (*ret_done && ok) {
        puts("reloaded");
    }
    if (*ret_done && !ok) {
        fputs("beaconctl: reload refused, the old configuration stays: ", stderr);
        show_clean(stderr, show_text(reload, "error"));
        fputc('\n', stderr);
        code = EXIT_FAILURE;
    }
    json_decref(status);
    return code;
}

int ctl_reload(struct ctl *c)
{
    const struct timespec pause = {.tv_nsec = RELOAD_POLL_MS * 1000000L};
    json_t *answer;
    bool done = false;
    int code = ctl_ask(c, "/v1/reload", "{}", &answer, NULL);
    if (code != 0)
        return code;
    int64_t sequence = show_number(answer, "sequence");
    json_decref(answer);
    for (unsigned ms = 0; ms <= c->client.timeout_ms; ms += RELOAD_POLL_MS) {
        code = reload_result(c, sequence, &done);
        if (code != 0 || done)
            return code;
        nanosleep(&pause, NULL);
    }
    return complain(EXIT_FAILURE, "the reload has not ended within %u ms", c->client.timeout_ms);
}
