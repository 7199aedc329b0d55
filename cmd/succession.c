#include "cmd/succession.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cmd/log.h"
#include "cmd/say.h"
#include "cmd/table.h"

static int failed_at(const char *step, int err)
{
    log_line(LOG_ERROR, "takeover", "the predecessor serves on", "step=%s error=%s", step,
             log_quote(strerror(-err)));
    return err;
}

int succession_begin(struct succession *s, const struct config *c)
{
    *s = (struct succession){.config = c, .inherited = {.table = -1}};
    int err = notify_inherited(&s->inherited);
    if (err < 0) { /* the manager must not hold on to the port with it */
        log_line(LOG_WARN, "takeover", "what the manager kept is not to be understood", NULL);
        notify_forget(NOTIFY_UDP, SHARDS_DESCRIPTORS_MAX);
        notify_forget(NOTIFY_TABLE, 0);
    }
    s->has_inherited = s->inherited.udp_count > 0;
    if (!c->takeover)
        return 0;
    err = takeover_ask(&s->heir, c->takeover_socket);
    s->has_predecessor = err == 0;
    if (err == -ENOENT) {
        log_line(LOG_INFO, "takeover", "nobody to take over from", "path=%s",
                 log_quote(c->takeover_socket));
        return 0;
    }
    return err < 0 ? failed_at("ask", err) : 0;
}

static void restore_row(void *arg, const struct route *route, const uint8_t *key)
{
    struct succession *s = arg;
    s->nodes += server_restore(s->server, route, key);
}

/* A table that cannot be read costs its nodes their next keepalive, no more. */
static void restore(struct succession *s, int table)
{
    int err = table_read(table, &s->server->service, clock_ns(), restore_row, s);
    if (err < 0)
        log_line(LOG_WARN, "takeover", "node table not taken", "error=%s",
                 log_quote(strerror(-err)));
}

static void inherited_close(struct succession *s)
{
    for (unsigned i = 0; i < s->inherited.udp_count; i++)
        close(s->inherited.udp[i]);
    s->inherited.udp_count = 0;
}

static int opened(struct succession *s, struct shards **ret, struct shards_report *report,
                  const char **failed)
{
    if (s->has_predecessor) {
        int err =
            shards_adopt(ret, s->server, s->config, s->heir.fds, s->heir.count, report, failed);
        if (err == 0)
            s->heir.count = 0;
        return err;
    }
    if (s->has_inherited) {
        int err = shards_adopt(ret, s->server, s->config, s->inherited.udp, s->inherited.udp_count,
                               report, failed);
        if (err == 0) {
            s->inherited.udp_count = 0;
            return 0;
        }
        log_line(LOG_WARN, "takeover", "kept sockets do not fit, opening others", "why=%s",
                 log_quote(*failed));
        notify_forget(NOTIFY_UDP, s->inherited.udp_count);
        inherited_close(s);
        s->has_inherited = false;
    }
    return shards_open(ret, s->server, s->config, report, failed);
}

int succession_open(struct succession *s, struct server *server, struct shards **ret,
                    struct shards_report *report)
{
    const char *failed = "";
    s->server = server;
    int err = opened(s, ret, report, &failed);
    if (err < 0) {
        log_line(LOG_ERROR, "udp", "cannot listen", "addr=%s step=%s error=%s",
                 endpoint_text(&s->config->addr), failed, log_quote(strerror(-err)));
        return err;
    }
    if (s->has_predecessor)
        restore(s, s->heir.table);
    else if (s->inherited.table >= 0)
        restore(s, s->inherited.table);
    if (s->inherited.table >= 0)
        notify_forget(NOTIFY_TABLE, 0); /* it is of use once */
    return 0;
}

int succession_clear(struct succession *s)
{
    int err = s->has_predecessor ? takeover_clear(&s->heir) : 0;
    return err < 0 ? failed_at("clear", err) : 0;
}

int succession_go(struct succession *s)
{
    if (!s->has_predecessor)
        return 0;
    int err = takeover_go(&s->heir);
    if (err < 0)
        return failed_at("go", err);
    restore(s, s->heir.table);
    return 0;
}

int succession_done(struct succession *s)
{
    int err = s->has_predecessor ? takeover_done(&s->heir) : 0;
    if (err < 0)
        return failed_at("done", err);
    if (s->has_predecessor || s->has_inherited)
        log_line(LOG_INFO, "takeover", "sockets and nodes taken over", "from=%s nodes=%" PRIu32,
                 s->has_predecessor ? "predecessor" : "manager", s->nodes);
    succession_end(s);
    s->has_predecessor = false;
    return 0;
}

void succession_end(struct succession *s)
{
    if (s->has_predecessor)
        takeover_leave(&s->heir);
    s->has_predecessor = false;
    inherited_close(s);
    if (s->inherited.table >= 0)
        close(s->inherited.table);
    s->inherited.table = -1;
}

void succession_store_sockets(const struct shards *shards)
{
    int fds[SHARDS_DESCRIPTORS_MAX];
    unsigned count = shards_descriptors(shards, fds, SHARDS_DESCRIPTORS_MAX);
    int err = count > 0 ? notify_store(fds, count, NOTIFY_UDP, true) : 0;
    if (err < 0 && err != -ENOTCONN)
        log_line(LOG_WARN, "takeover", "the manager does not keep the sockets", "error=%s",
                 log_quote(strerror(-err)));
}

void succession_store_table(const struct server *server)
{
    if (!getenv("NOTIFY_SOCKET")) /* nobody would keep it */
        return;
    int fd = table_write(server, 0, clock_ns());
    if (fd < 0)
        return;
    notify_store(&fd, 1, NOTIFY_TABLE, false); /* no manager, no use */
    close(fd);
}
