/* beaconctl - asks a running beacon, and tells it what to do, through its admin interface. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>
#include "cmd/client.h"
#include "cmd/ctl.h"
#include "cmd/gossip_key.h"
#include "cmd/show.h"
#include "cmd/token.h"
#include "cmd/version.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define ADMIN_SOCKET "/run/beacon/admin.sock"
#define ADMIN_TCP "127.0.0.1:8081"

enum { PAGE_ROWS = 1000 }; /* a request */

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
    int code = ctl_ask(c, path, NULL, &page, &text);
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

static int run_status(struct ctl *c, const char *const *arguments)
{
    (void)arguments;
    return ctl_show(c, "/v1/status", show_status);
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

static int run_nodes(struct ctl *c, const char *const *arguments)
{
    const char *argument = arguments[0];
    static const struct list nodes = {"/v1/nodes", "nodes", show_nodes_head, show_nodes_row};
    char path[64];
    uint32_t id;
    if (!argument)
        return list_show(c, &nodes);
    if (!read_id(argument, &id))
        return complain(CTL_USAGE, "%s is no node id", argument);
    snprintf(path, sizeof path, "/v1/nodes/%" PRIu32, id);
    return ctl_show(c, path, show_node);
}

static int run_talkers(struct ctl *c, const char *const *arguments)
{
    (void)arguments;
    return ctl_show(c, "/v1/talkers", show_talkers);
}

static int run_sessions(struct ctl *c, const char *const *arguments)
{
    static const struct list sessions = {"/v1/sessions", "sessions", show_sessions_head,
                                         show_sessions_row};
    (void)arguments;
    return list_show(c, &sessions);
}

static int run_drain(struct ctl *c, const char *const *arguments)
{
    (void)arguments;
    return ctl_tell(c, "/v1/drain", "{\"on\":true}", "draining\n");
}

static int run_undrain(struct ctl *c, const char *const *arguments)
{
    (void)arguments;
    return ctl_tell(c, "/v1/drain", "{\"on\":false}", "serving\n");
}

static int run_reload(struct ctl *c, const char *const *arguments)
{
    (void)arguments;
    return ctl_reload(c);
}

static void show_level(FILE *out, const json_t *status)
{
    show_clean(out, show_text(status, "log_level"));
    fputc('\n', out);
}

static int run_log_level(struct ctl *c, const char *const *arguments)
{
    const char *argument = arguments[0];
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    char body[64], said[16];
    if (!argument)
        return ctl_show(c, "/v1/status", show_level);
    for (size_t i = 0; i < COUNT(levels); i++) {
        if (strcmp(levels[i], argument) != 0)
            continue;
        snprintf(body, sizeof body, "{\"level\":\"%s\"}", argument);
        snprintf(said, sizeof said, "%s\n", argument);
        return ctl_tell(c, "/v1/log-level", body, said);
    }
    return complain(CTL_USAGE, "%s is no level: debug, info, warn or error", argument);
}

static int run_notify(struct ctl *c, const char *const *arguments)
{
    const char *argument = arguments[0];
    char body[64];
    uint32_t id;
    if (!read_id(argument, &id))
        return complain(CTL_USAGE, "%s is no node id", argument);
    snprintf(body, sizeof body, "{\"node_id\":%" PRIu32 "}", id);
    return ctl_tell(c, "/v1/notify", body, "notified\n");
}

/* For HEALTHCHECK lines: what a load balancer would see. */
static int run_health(struct ctl *c, const char *const *arguments)
{
    const char *argument = arguments[0];
    struct answer a;
    if (argument && !client_set_address(&c->client, argument))
        return complain(CTL_USAGE, "%s", c->client.error);
    int code = client_ask(&c->client, "/healthz", NULL, &a);
    if (code != 0)
        return ctl_unreachable(c, code);
    show_clean(stdout, strtok(a.body, "\r\n") ? a.body : "");
    fputc('\n', stdout);
    code = a.status == 200 ? EXIT_SUCCESS : EXIT_FAILURE;
    free(a.body);
    return code;
}

static const char peers_path[] = "/v1/peers";

static const json_t *peer_find(const json_t *answer, uint32_t id)
{
    const json_t *peer;
    size_t i;
    json_array_foreach(json_object_get(answer, "peers"), i, peer)
    {
        if (show_number(peer, "beacon_id") == id)
            return peer;
    }
    return NULL;
}

/* Whoever names a beacon asks whether it is there: 0 only when it is alive. */
static int peer_show(struct ctl *c, uint32_t id)
{
    json_t *answer;
    int code = ctl_ask(c, peers_path, NULL, &answer, NULL);
    if (code != 0)
        return code;
    const json_t *peer = peer_find(answer, id);
    if (!peer) {
        code = complain(EXIT_FAILURE, "no beacon %" PRIu32 " is known", id);
    } else if (c->json) {
        json_dumpf(peer, stdout, JSON_COMPACT);
        fputc('\n', stdout);
    } else {
        show_peers_head(stdout);
        show_peers_row(stdout, peer);
    }
    if (peer && strcmp(show_text(peer, "state"), "alive") != 0)
        code = CTL_DEGRADED;
    json_decref(answer);
    return code;
}

static int run_peers(struct ctl *c, const char *const *arguments)
{
    uint32_t id;
    if (!arguments[0])
        return ctl_show(c, peers_path, show_peers);
    if (!read_id(arguments[0], &id))
        return complain(CTL_USAGE, "%s is no beacon id", arguments[0]);
    return peer_show(c, id);
}

static int run_gossip_key(struct ctl *c, const char *const *arguments)
{
    return gossip_key_run(c, arguments[0], arguments[1]);
}

enum { ARGUMENTS_MAX = 2 };

static const struct command {
    const char *name, *argument; /* NULL: takes none; "[X]": may be left out; "X [Y]": two */
    const char *help;
    int (*run)(struct ctl *c, const char *const *arguments); /* NULL behind the last */
} commands[] = {
    {"status", NULL, "what it is and does: state, totals, drops", run_status},
    {"nodes", "[ID]", "the nodes that are registered, or one, wherever it is", run_nodes},
    {"peers", "[ID]", "other beacons; of one: is it alive?", run_peers},
    {"talkers", NULL, "who relays most", run_talkers},
    {"sessions", NULL, "the nodes that are connected over WebSocket", run_sessions},
    {"drain", NULL, "send load balancers and sessions elsewhere", run_drain},
    {"undrain", NULL, "take that back", run_undrain},
    {"reload", NULL, "read the configuration again; says how that ended", run_reload},
    {"log-level", "[LEVEL]", "show or set what is logged: debug, info, warn, error", run_log_level},
    {"notify", "ID", "make a node ask its registry", run_notify},
    {"health", "[ADDR]", "ready or not, as load balancers see it", run_health},
    {"gossip-key", "ACTION [ID]", "generate, list, add, use or remove keys of --file",
     run_gossip_key},
};

/* --- the command line --- */

static int print_help(void)
{
    fputs("usage: beaconctl [options] command\n\n", stdout);
    for (size_t i = 0; i < COUNT(commands); i++)
        printf("  %-10s %-11s %s\n", commands[i].name,
               commands[i].argument ? commands[i].argument : "", commands[i].help);
    fputs("\n"
          "  --admin ADDR       unix:PATH, HOST:PORT, http://HOST:PORT or https://HOST:PORT;\n"
          "                     else $BEACON_ADMIN, unix:" ADMIN_SOCKET " or " ADMIN_TCP "\n"
          "  --token-file FILE  the admin token; else $BEACON_ADMIN_TOKEN, or the file that\n"
          "                     $BEACON_ADMIN_TOKEN_FILE names\n"
          "  --json             print what the beacon answers\n"
          "  --limit N          of nodes and sessions, at most so many\n"
          "  --timeout S        for each request, 10 s\n"
          "  --file FILE        of gossip-key: the file that the option gossip-keys names\n"
          "  --no-reload        of gossip-key: do not have the beacon read it\n"
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

static int arguments_allowed(const struct command *command)
{
    const char *argument = command->argument;
    return !argument ? 0 : argument[0] != '[' && strchr(argument, '[') ? 2 : 1;
}

static int command_run(struct ctl *c, int argc, char **argv)
{
    const char *arguments[ARGUMENTS_MAX + 1] = {NULL};
    if (argc < 1)
        return complain(CTL_USAGE, "a command is wanted; beaconctl --help names them");
    for (size_t i = 0; i < COUNT(commands); i++) {
        const struct command *command = &commands[i];
        if (strcmp(command->name, argv[0]) != 0)
            continue;
        if (argc - 1 > arguments_allowed(command))
            return complain(CTL_USAGE, "%s is too much for %s", argv[argc - 1], argv[0]);
        if (argc < 2 && command->argument && command->argument[0] != '[')
            return complain(CTL_USAGE, "%s wants %s", argv[0], command->argument);
        for (int n = 1; n < argc; n++)
            arguments[n - 1] = argv[n];
        return command->run(c, arguments);
    }
    return complain(CTL_USAGE, "no command %s; beaconctl --help names them", argv[0]);
}

static int run(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"admin", required_argument, NULL, 'a'},   {"token-file", required_argument, NULL, 't'},
        {"json", no_argument, NULL, 'j'},          {"limit", required_argument, NULL, 'l'},
        {"timeout", required_argument, NULL, 'w'}, {"ca", required_argument, NULL, 'c'},
        {"insecure", no_argument, NULL, 'k'},      {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},       {"file", required_argument, NULL, 'f'},
        {"no-reload", no_argument, NULL, 'n'},     {NULL, 0, NULL, 0},
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
                return complain(CTL_USAGE, "--limit wants a number from 1 on, not %s", optarg);
            break;
        case 'w':
            if (!read_count(optarg, 3600, &timeout_s))
                return complain(CTL_USAGE, "--timeout wants 1 to 3600 seconds, not %s", optarg);
            break;
        case 'c':
            c->client.ca = optarg;
            break;
        case 'k':
            c->client.insecure = true;
            break;
        case 'f':
            c->file = optarg;
            break;
        case 'n':
            c->no_reload = true;
            break;
        case 'h':
            return print_help();
        case 'v':
            printf("beaconctl %s %s\n", beacon_version, beacon_revision);
            return EXIT_SUCCESS;
        default:
            fputs("beaconctl --help names the options\n", stderr);
            return CTL_USAGE;
        }
    }
    c->client.timeout_ms = (unsigned)timeout_s * 1000;
    if (!client_set_address(&c->client, admin ? admin : admin_default()))
        return complain(CTL_USAGE, "%s", c->client.error);
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
