#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "gossip/discover_state.h"

enum {
    RETRY_S = 10, /* of a lookup that failed, or could not begin */
    TEXT_MAX = 2 * PEER_TEXT_MAX + 64,
};
#define NS_PER_S UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)
/* What is under way comes up again when it is over. */
#define BUSY UINT64_MAX

/* Work of a lookup's errand. */
struct lookup {
    struct peer_name name;
    bool is_service, was_service;
    uint64_t until_ns;
    struct resolved found;
};

/* --- lookups --- */

static void lookup_run(void *what)
{
    struct lookup *l = what;
    if (l->is_service)
        resolve_service(l->name.host, l->name.port, l->was_service, l->until_ns, &l->found);
    else
        resolve_host(l->name.host, l->name.port, &l->found);
}

static const struct errand_kind lookup_kind = {lookup_run, free, "resolve"};

static uint64_t resolve_period_ns(const struct discover *d, bool is_service)
{
    if (d->c.period_ms)
        return d->c.period_ms * NS_PER_MS;
    return (is_service ? DISCOVER_PERIOD_S : DISCOVER_RESOLVE_S) * NS_PER_S;
}

static uint64_t retry_ns(const struct discover *d)
{
    uint64_t period_ns = resolve_period_ns(d, true);
    return period_ns < RETRY_S * NS_PER_S ? period_ns : RETRY_S * NS_PER_S;
}

static void take_lookup(struct discover *d, const struct lookup *l, uint64_t now_ns)
{
    const struct resolved *r = &l->found;
    struct place *p = NULL;
    while ((p = seeds_next(&d->seeds, p, &l->name, l->is_service))) {
        p->next_ns = now_ns + (r->good ? resolve_period_ns(d, l->is_service) : retry_ns(d));
        if (!r->good) {
            discover_say(d, &p->said, true, "dns", "%s: %s", l->name.host, r->error);
            continue;
        }
        if (p->said != 0)
            discover_say(d, &p->said, false, "dns", "%s: found", l->name.host);
        p->said = 0;
        p->was_service = r->is_service;
        p->count = r->count;
        memcpy(p->at, r->at, sizeof p->at);
    }
}

void discover_collect_lookups(struct discover *d, uint64_t now_ns)
{
    for (unsigned i = 0; i < DISCOVER_LOOKUPS_MAX; i++) {
        struct errand *e = d->lookup[i];
        if (e && errand_is_done(e)) {
            take_lookup(d, errand_result(e), now_ns);
            errand_drop(e);
            d->lookup[i] = NULL;
        } else if (e && !d->is_slow[i] && now_ns >= d->slow_ns[i]) {
            uint64_t said = 0; /* once a lookup */
            d->is_slow[i] = true;
            discover_say(d, &said, true, "dns", "%s: no answer for %d s", d->asked[i].host,
                         DISCOVER_WAIT_S);
        }
    }
}

static void set_next(struct discover *d, const struct peer_name *name, bool is_service,
                     uint64_t next_ns)
{
    struct place *p = NULL;
    while ((p = seeds_next(&d->seeds, p, name, is_service)))
        p->next_ns = next_ns;
}

static bool is_asked(const struct discover *d, const struct place *p)
{
    for (unsigned i = 0; i < DISCOVER_LOOKUPS_MAX; i++)
        if (d->lookup[i] && d->asked_service[i] == p->is_service &&
            d->asked[i].port == p->name.port && strcmp(d->asked[i].host, p->name.host) == 0)
            return true;
    return false;
}

static void start_lookup(struct discover *d, unsigned i, const struct place *p, uint64_t now_ns)
{
    struct lookup *l = calloc(1, sizeof *l);
    d->asked[i] = p->name;
    d->asked_service[i] = p->is_service;
    d->is_slow[i] = false;
    d->slow_ns[i] = now_ns + DISCOVER_WAIT_S * NS_PER_S;
    if (l) {
        l->name = p->name;
        l->is_service = p->is_service;
        l->was_service = p->was_service;
        l->until_ns = d->slow_ns[i];
        d->lookup[i] = errand_start(&lookup_kind, l, d->bell);
    }
    /* No memory, no thread: later, as after a lookup that failed. */
    set_next(d, &d->asked[i], d->asked_service[i], d->lookup[i] ? BUSY : now_ns + retry_ns(d));
}

void discover_start_lookups(struct discover *d, uint64_t now_ns)
{
    for (unsigned i = 0; i < DISCOVER_LOOKUPS_MAX;) {
        struct place *p;
        if (d->lookup[i]) {
            i++;
        } else if (!(p = seeds_due(&d->seeds, now_ns))) {
            break;
        } else if (is_asked(d, p)) {
            p->next_ns = BUSY; /* another source has the same name: the answer is for both */
        } else {
            start_lookup(d, i, p, now_ns);
        }
    }
}

/* --- the registry --- */

static void cycle_run(void *what)
{
    registry_cycle_run(what);
}

static void cycle_dispose(void *what)
{
    struct registry_cycle *c = what;
    SSL_CTX_free(c->tls);
    close(c->stop);
    explicit_bzero(c->token, sizeof c->token);
    free(c);
}

static const struct errand_kind cycle_kind = {cycle_run, cycle_dispose, "registry"};

void discover_start_cycle(struct discover *d, uint64_t now_ns)
{
    struct registry_cycle *c = calloc(1, sizeof *c);
    d->cycle_ns = now_ns + resolve_period_ns(d, true);
    if (!c)
        return;
    c->at = d->registry;
    c->beacon_id = d->c.beacon_id;
    c->bound = d->c.bound;
    c->looks_first = d->addr[0] != '\0';
    memcpy(c->advertise, d->advertise, sizeof c->advertise);
    snprintf(c->token, sizeof c->token, "%s", d->c.registry_token);
    c->stop = fcntl(d->stop, F_DUPFD_CLOEXEC, 0);
    if (c->stop < 0) {
        free(c);
        return;
    }
    if (d->tls && SSL_CTX_up_ref(d->tls) == 1)
        c->tls = d->tls;
    if (d->tls && !c->tls) { /* not without it */
        cycle_dispose(c);
        return;
    }
    d->cycle = errand_start(&cycle_kind, c, d->bell);
}

/* Says who else uses our id, and who share another one. Returns the hash of it all, 0: nobody; says
 * nothing when that is `said`. */
static uint64_t check_ids(struct discover *d, const struct registry_list *l, uint64_t said,
                          bool aloud)
{
    uint64_t all = 0;
    for (unsigned i = 0; i < l->count; i++) {
        const struct registry_beacon *b = &l->of[i];
        char addr[PEER_TEXT_MAX], other[PEER_TEXT_MAX], text[TEXT_MAX] = "";
        (void)peer_name_write(addr, b->host, b->port);
        if (b->id == d->c.beacon_id && d->addr[0] && strcmp(addr, d->addr) != 0)
            snprintf(text, sizeof text, "beacon id %u is also registered by %s", b->id, addr);
        for (unsigned k = 0; k < i && !text[0]; k++) {
            if (l->of[k].id != b->id || b->id == d->c.beacon_id)
                continue;
            (void)peer_name_write(other, l->of[k].host, l->of[k].port);
            if (strcmp(addr, other) != 0)
                snprintf(text, sizeof text, "beacon id %u is registered by %s and by %s", b->id,
                         other, addr);
        }
        if (!text[0])
            continue;
        all = discover_hash(all, text);
        if (aloud && d->c.say)
            d->c.say(d->c.arg, true, "registry", text);
    }
    if (!aloud && all != 0 && all != said)
        (void)check_ids(d, l, said, true);
    return all;
}

static void take_list(struct discover *d, const struct registry_list *l)
{
    seeds_begin(&d->seeds, SEEDS_REGISTRY);
    for (unsigned i = 0; i < l->count; i++) {
        struct peer_name name = {.port = l->of[i].port};
        memcpy(name.host, l->of[i].host, sizeof name.host);
        if (l->of[i].id != d->c.beacon_id)
            seeds_add(&d->seeds, SEEDS_REGISTRY, &name, l->of[i].id, false);
    }
    seeds_end(&d->seeds, SEEDS_REGISTRY);
    if (l->skipped > 0)
        discover_say(d, &d->said_skipped, true, "registry", "%u entries of the list make no sense",
                     l->skipped);
    else
        d->said_skipped = 0;
}

static void set_status(struct discover *d, const struct registry_cycle *c)
{
    pthread_mutex_lock(&d->lock);
    d->status.registry_ok = c->registered && c->listed;
    if (d->status.registry_ok)
        d->status.registry_ok_unix_s = (int64_t)time(NULL);
    if (c->listed)
        d->status.listed = c->list.count;
    /* That the look before failed does not matter when all else went well. */
    snprintf(d->status.error, sizeof d->status.error, "%s", d->status.registry_ok ? "" : c->error);
    pthread_mutex_unlock(&d->lock);
}

void discover_collect_cycle(struct discover *d)
{
    if (!d->cycle || !errand_is_done(d->cycle))
        return;
    const struct registry_cycle *c = errand_result(d->cycle);
    set_status(d, c); /* before anybody is told */
    /* Before we register again: who has put our id somewhere else shows here only. */
    uint64_t twice = c->looked ? check_ids(d, &c->before, d->said_twice, false) : 0;
    if (c->addr[0])
        d->scope = c->scope;
    if (c->registered)
        memcpy(d->addr, c->addr, sizeof d->addr);
    if (c->listed) {
        take_list(d, &c->list);
        twice = twice ? twice : check_ids(d, &c->list, d->said_twice, false);
    }
    if (c->looked || c->listed)
        d->said_twice = twice;
    if (c->registered && c->listed)
        discover_say(d, &d->said_cycle, false, "registry", "%s: registered as %s", d->c.registry,
                     c->addr);
    else
        discover_say(d, &d->said_cycle, true, "registry", "%s: %s", d->c.registry, c->error);
    errand_drop(d->cycle);
    d->cycle = NULL;
}
