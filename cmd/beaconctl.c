/* beaconctl - asks a running beacon, and tells it what to do, through its admin interface. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include "cmd/client.h"
#include "cmd/show.h"
#include "cmd/token.h"
#include "cmd/version.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define ADMIN_SOCKET "/run/beacon/admin.sock"
#define ADMIN_TCP "127.0.0.1:8081"

enum {
    EXIT_USAGE = 2,
    PAGE_ROWS = 1000, /* a request */
    RELOAD_POLL_MS = 100,
};

struct ctl {
    struct client client;
    bool json;
    uint64_t limit; /* rows in all; 0: no limit */
    char token[TOKEN_MAX];
};

static int complain(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int complain(int code, const char *format, ...)
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

static int unreachable(const struct ctl *c, int code)
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

/* The JSON of an answer that is good; its text, too, when `ret_text` is not NULL. 0 or an exit
 * code, which has been explained. */
static int ask(struct ctl *c, const char *path, const char *body, json_t **ret, char **ret_text)
{
    struct answer a;
    int code = client_ask(&c->client, path, body, &a);
    if (code != 0)
        return unreachable(c, code);
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

/* Asks and prints: as it came with --json, else by `show`. */
static int ask_and_show(struct ctl *c, const char *path, void (*show)(FILE *out, const json_t *))
{
    json_t *value;
    char *text;
    int code = ask(c, path, NULL, &value, &text);
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

/* Commands: with --json what came, else `said`. */
static int tell(struct ctl *c, const char *path, const char *body, const char *said)
{
    json_t *value;
    char *text;
    int code = ask(c, path, body, &value, &text);
    if (code != 0)
        return code;
    fputs(c->json ? text : said, stdout);
    json_decref(value);
    free(text);
    return 0;
}

/* --- lists --- */

struct list {
    const char *path, *name;
    void (*head)(FILE *out);
    void (*row)(FILE *out, const json_t *);
};

/* Opaque to us, but it must not change the request. */
static bool is_cursor(const char *text)
{
    return *text && strlen(text) < 64 && strspn(text, "0123456789-") == strlen(text);
}

/* One page. With --json each is printed as it came, on a line of its own. */
static int list_page(struct ctl *c, const struct list *l, uint64_t rows, char after[static 64],
                     uint64_t *shown)
{
    char path[160], *text;
    json_t *page, *row;
    size_t i;
    snprintf(path, sizeof path, "%s?limit=%" PRIu64 "%s%s", l->path, rows, *after ? "&after=" : "",
             after);
    int code = ask(c, path, NULL, &page, &text);
    if (code != 0)
        return code;
    if (c->json)
        fputs(text, stdout);
    json_array_foreach(json_object_get(page, l->name), i, row)
    {
        ++*shown;
        if (!c->json)
            l->row(stdout, row);
    }
    const char *next = show_text(page, "next");
    snprintf(after, 64, "%s", is_cursor(next) ? next : "");
    json_decref(page);
    free(text);
    return 0;
}

static int list_show(struct ctl *c, const struct list *l)
{
    char after[64] = "";
    uint64_t shown = 0;
    int code;
    if (!c->json)
        l->head(stdout);
    do {
        uint64_t rows = c->limit && c->limit - shown < PAGE_ROWS ? c->limit - shown : PAGE_ROWS;
        code = list_page(c, l, rows, after, &shown);
    } while (code == 0 && *after && (c->limit == 0 || shown < c->limit));
    return code;
}

/* --- the commands --- */

static int run_status(struct ctl *c, const char *argument)
{
    (void)argument;
    return ask_and_show(c, "/v1/status", show_status);
}

static bool read_id(const char *text, uint32_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long id = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || id < 1 || id > UINT32_MAX)
        return false;
    *ret = (uint32_t)id;
    return true;
}

static int run_nodes(struct ctl *c, const char *argument)
{
    static const struct list nodes = {"/v1/nodes", "nodes", show_nodes_head, show_nodes_row};
    char path[64];
    uint32_t id;
    if (!argument)
        return list_show(c, &nodes);
    if (!read_id(argument, &id))
        return complain(EXIT_USAGE, "%s is no node id", argument);
    snprintf(path, sizeof path, "/v1/nodes/%" PRIu32, id);
    return ask_and_show(c, path, show_node);
}

static int run_talkers(struct ctl *c, const char *argument)
{
    (void)argument;
    return ask_and_show(c, "/v1/talkers", show_talkers);
}

static int run_sessions(struct ctl *c, const char *argument)
{
    static const struct list sessions = {"/v1/sessions", "sessions", show_sessions_head,
                                         show_sessions_row};
    (void)argument;
    return list_show(c, &sessions);
}

static int run_drain(struct ctl *c, const char *argument)
{
    (void)argument;
    return tell(c, "/v1/drain", "{\"on\":true}", "draining\n");
}

static int run_undrain(struct ctl *c, const char *argument)
{
    (void)argument;
    return tell(c, "/v1/drain", "{\"on\":false}", "serving\n");
}

/* How the reload `sequence` ended. 0 or an exit code; *ret_done is false while it has not. */
static int reload_result(struct ctl *c, int64_t sequence, bool *ret_done)
{
    json_t *status;
    int code = ask(c, "/v1/status", NULL, &status, NULL);
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

static int run_reload(struct ctl *c, const char *argument)
{
    const struct timespec pause = {.tv_nsec = RELOAD_POLL_MS * 1000000L};
    json_t *answer;
    bool done = false;
    (void)argument;
    int code = ask(c, "/v1/reload", "{}", &answer, NULL);
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

static void show_level(FILE *out, const json_t *status)
{
    show_clean(out, show_text(status, "log_level"));
    fputc('\n', out);
}

static int run_log_level(struct ctl *c, const char *argument)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    char body[64], said[16];
    if (!argument)
        return ask_and_show(c, "/v1/status", show_level);
    for (size_t i = 0; i < COUNT(levels); i++) {
        if (strcmp(levels[i], argument) != 0)
            continue;
        snprintf(body, sizeof body, "{\"level\":\"%s\"}", argument);
        snprintf(said, sizeof said, "%s\n", argument);
        return tell(c, "/v1/log-level", body, said);
    }
    return complain(EXIT_USAGE, "%s is no level: debug, info, warn or error", argument);
}

static int run_notify(struct ctl *c, const char *argument)
{
    char body[64];
    uint32_t id;
    if (!read_id(argument, &id))
        return complain(EXIT_USAGE, "%s is no node id", argument);
    snprintf(body, sizeof body, "{\"node_id\":%" PRIu32 "}", id);
    return tell(c, "/v1/notify", body, "notified\n");
}

/* For HEALTHCHECK lines: what a load balancer would see. */
static int run_health(struct ctl *c, const char *argument)
{
    struct answer a;
    if (argument && !client_set_address(&c->client, argument))
        return complain(EXIT_USAGE, "%s", c->client.error);
    int code = client_ask(&c->client, "/healthz", NULL, &a);
    if (code != 0)
        return unreachable(c, code);
    show_clean(stdout, strtok(a.body, "\r\n") ? a.body : "");
    fputc('\n', stdout);
    code = a.status == 200 ? EXIT_SUCCESS : EXIT_FAILURE;
    free(a.body);
    return code;
}

static const struct command {
    const char *name, *argument; /* NULL: takes none; "[X]": may be left out */
    const char *help;
    int (*run)(struct ctl *c, const char *argument);
} commands[] = {
    {"status", NULL, "what it is and does: state, totals, drops", run_status},
    {"nodes", "[ID]", "the nodes that are registered, or one", run_nodes},
    {"talkers", NULL, "who relays most", run_talkers},
    {"sessions", NULL, "the nodes that are connected over WebSocket", run_sessions},
    {"drain", NULL, "send load balancers and sessions elsewhere", run_drain},
    {"undrain", NULL, "take that back", run_undrain},
    {"reload", NULL, "read the configuration again; says how that ended", run_reload},
    {"log-level", "[LEVEL]", "show or set what is logged: debug, info, warn, error", run_log_level},
    {"notify", "ID", "make a node ask its registry", run_notify},
    {"health", "[ADDR]", "ready or not, as load balancers see it", run_health},
};

/* --- the command line --- */

static int print_help(void)
{
    fputs("usage: beaconctl [options] command\n\n", stdout);
    for (size_t i = 0; i < COUNT(commands); i++)
        printf("  %-9s %-9s %s\n", commands[i].name,
               commands[i].argument ? commands[i].argument : "", commands[i].help);
    fputs("\n"
          "  --admin ADDR       unix:PATH, HOST:PORT, http://HOST:PORT or https://HOST:PORT;\n"
          "                     else $BEACON_ADMIN, unix:" ADMIN_SOCKET " or " ADMIN_TCP "\n"
          "  --token-file FILE  the admin token; else $BEACON_ADMIN_TOKEN, or the file that\n"
          "                     $BEACON_ADMIN_TOKEN_FILE names\n"
          "  --json             print what the beacon answers\n"
          "  --limit N          of nodes and sessions, at most so many\n"
          "  --timeout S        for each request, 10 s\n"
          "  --ca FILE          believe these CAs instead of the system's\n"
          "  --insecure         believe any certificate\n"
          "  --help  --version\n",
          stdout);
    return EXIT_SUCCESS;
}

static const char *admin_default(void)
{
    const char *given = getenv("BEACON_ADMIN");
    if (given && *given)
        return given;
    /* Where its directory lets us not in, it may well be there: then that is what to tell. */
    bool may_be_there = access(ADMIN_SOCKET, F_OK) == 0 || errno == EACCES;
    return may_be_there ? "unix:" ADMIN_SOCKET : ADMIN_TCP;
}

static bool read_count(const char *text, uint64_t max, uint64_t *ret)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < 1 || value > max)
        return false;
    *ret = value;
    return true;
}

static int command_run(struct ctl *c, int argc, char **argv)
{
    if (argc < 1)
        return complain(EXIT_USAGE, "a command is wanted; beaconctl --help names them");
    for (size_t i = 0; i < COUNT(commands); i++) {
        const struct command *command = &commands[i];
        if (strcmp(command->name, argv[0]) != 0)
            continue;
        if (argc > (command->argument ? 2 : 1))
            return complain(EXIT_USAGE, "%s is too much for %s", argv[argc - 1], argv[0]);
        if (argc < 2 && command->argument && command->argument[0] != '[')
            return complain(EXIT_USAGE, "%s wants %s", argv[0], command->argument);
        return command->run(c, argc > 1 ? argv[1] : NULL);
    }
    return complain(EXIT_USAGE, "no command %s; beaconctl --help names them", argv[0]);
}

static int run(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"admin", required_argument, NULL, 'a'},   {"token-file", required_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'},          {"limit", required_argument, NULL, 'l'},
        {"timeout", required_argument, NULL, 'w'}, {"ca", required_argument, NULL, 'c'},
        {"insecure", no_argument, NULL, 'k'},      {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},       {NULL, 0, NULL, 0},
    };
    const char *admin = NULL, *token_file = NULL;
    uint64_t timeout_s = 10;
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (o) {
        case 'a':
            admin = optarg;
            break;
        case 't':
            token_file = optarg;
            break;
        case 'j':
            c->json = true;
            break;
        case 'l':
            if (!read_count(optarg, UINT32_MAX, &c->limit))
                return complain(EXIT_USAGE, "--limit wants a number from 1 on, not %s", optarg);
            break;
        case 'w':
            if (!read_count(optarg, 3600, &timeout_s))
                return complain(EXIT_USAGE, "--timeout wants 1 to 3600 seconds, not %s", optarg);
            break;
        case 'c':
            c->client.ca = optarg;
            break;
        case 'k':
            c->client.insecure = true;
            break;
        case 'h':
            return print_help();
        case 'v':
            printf("beaconctl %s %s\n", beacon_version, beacon_revision);
            return EXIT_SUCCESS;
        default:
            fputs("beaconctl --help names the options\n", stderr);
            return EXIT_USAGE;
        }
    }
    c->client.timeout_ms = (unsigned)timeout_s * 1000;
    if (!client_set_address(&c->client, admin ? admin : admin_default()))
        return complain(EXIT_USAGE, "%s", c->client.error);
    char error[CLIENT_ERROR_MAX];
    if (!token_take(c->token, token_file, error, sizeof error))
        return complain(EXIT_FAILURE, "%s", error);
    c->client.token = c->token[0] ? c->token : NULL;
    return command_run(c, argc - optind, argv + optind);
}

int main(int argc, char **argv)
{
    static struct ctl c; /* zero */
    int code = run(&c, argc, argv);
    client_close(&c.client);
    if (fflush(stdout) != 0 && code == 0)
        code = complain(EXIT_FAILURE, "cannot write: %s", strerror(errno));
    return code;
}
