/* usage: sim-beacons [--scenario NAME] [--seed N] [--beacons N] [--nodes N] [--loss PERCENT]
 *                    [--dup PERCENT] [--rows N] [--hours H] [--trace] [--list]
 * Without arguments: a fixed list of runs, about a minute of work. With some: one run, of what the
 * scenario uses where nothing is said. One line a run: its figures, and a hash of all that
 * happened. The last line is "N passed, N failed, N skipped"; exit code 1 when one failed. */
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "tests/sim/sim.h"

enum { NOT_SAID = 101 };

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const struct scenario *scenario_find(const char *name)
{
    for (unsigned i = 0; i < scenario_count; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    return NULL;
}

static struct sim_options completed(const struct sim_options *said, const struct scenario *s)
{
    struct sim_options o = *said;
    o.beacons = o.beacons ? o.beacons : s->usual.beacons;
    o.nodes = o.nodes ? o.nodes : s->usual.nodes;
    o.rows = o.rows ? o.rows : s->usual.rows;
    o.loss = o.loss != NOT_SAID ? o.loss : s->usual.loss;
    o.dup = o.dup != NOT_SAID ? o.dup : s->usual.dup;
    return o;
}

/* True: passed. */
static bool one_run(const struct sim_options *said, const struct scenario *s)
{
    static struct world w;
    struct sim_options o = completed(said, s);
    double began_s = cpu_s();
    world_open(&w, &o, s->name);
    s->run(&w);
    printf("%s %s seed=%llu beacons=%u nodes=%u loss=%u%% dup=%u%%%s events=%llu time=%llus "
           "cpu=%.1fs hash=%016llx\n",
           w.failed ? "FAILED" : "passed", s->name, (unsigned long long)o.seed, o.beacons, o.nodes,
           o.loss, o.dup, w.figures, (unsigned long long)w.events,
           (unsigned long long)(w.now_ns / SIM_S), cpu_s() - began_s, (unsigned long long)w.hash);
    if (w.failed) {
        printf("  %s\n  replay: sim-beacons --scenario %s --seed %llu --beacons %u --nodes %u "
               "--loss %u --dup %u",
               w.reason, s->name, (unsigned long long)o.seed, o.beacons, o.nodes, o.loss, o.dup);
        if (said->rows)
            printf(" --rows %u", o.rows);
        if (o.hours)
            printf(" --hours %u", o.hours);
        printf("\n");
    }
    fflush(stdout);
    world_close(&w);
    return !w.failed;
}

/* What `make check` runs: about a minute. */
static const struct {
    const char *scenario;
    unsigned seeds, beacons, hours; /* 0: as usual */
} budget[] = {
    {"chaos", 20, 5, 0},  {"chaos", 12, 3, 0}, {"chaos", 8, 2, 0},  {"chaos", 5, 9, 0},
    {"cramped", 8, 0, 0}, {"update", 2, 3, 0}, {"update", 2, 5, 0}, {"update", 1, 50, 0},
    {"heal", 3, 0, 0},    {"bridge", 2, 0, 0}, {"ring", 2, 0, 0},   {"dead", 2, 5, 0},
    {"dead", 1, 50, 0},   {"leave", 2, 0, 0},  {"pauses", 1, 5, 8}, {"pauses", 1, 20, 1},
    {"clock", 4, 0, 0},   {"idle", 1, 50, 0},  {"scale", 1, 0, 0},
};

static unsigned run_budget(unsigned *ret_passed)
{
    unsigned failed = 0;
    for (size_t i = 0; i < sizeof budget / sizeof *budget; i++)
        for (unsigned seed = 1; seed <= budget[i].seeds; seed++) {
            struct sim_options o = {.seed = seed,
                                    .beacons = budget[i].beacons,
                                    .hours = budget[i].hours,
                                    .loss = NOT_SAID,
                                    .dup = NOT_SAID};
            bool passed = one_run(&o, scenario_find(budget[i].scenario));
            *ret_passed += passed;
            failed += !passed;
        }
    return failed;
}

static bool number(const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    uint64_t n = strtoull(text, &end, 10);
    if (*end != '\0' || n < least || n > most)
        return false;
    *ret = n;
    return true;
}

static bool option(struct sim_options *o, const char *name, const char *value)
{
    uint64_t n;
    if (strcmp(name, "--scenario") == 0 && value) {
        o->scenario = value;
        return scenario_find(value) != NULL;
    }
    if (strcmp(name, "--seed") == 0)
        return number(value, 0, UINT64_MAX, &o->seed);
    if (strcmp(name, "--beacons") == 0 && number(value, 2, SIM_BEACONS_MAX, &n))
        o->beacons = (unsigned)n;
    else if (strcmp(name, "--nodes") == 0 && number(value, 1, 100000000, &n))
        o->nodes = (uint32_t)n;
    else if (strcmp(name, "--rows") == 0 && number(value, 1, 100000000, &n))
        o->rows = (uint32_t)n;
    else if (strcmp(name, "--loss") == 0 && number(value, 0, 100, &n))
        o->loss = (unsigned)n;
    else if (strcmp(name, "--dup") == 0 && number(value, 0, 100, &n))
        o->dup = (unsigned)n;
    else if (strcmp(name, "--hours") == 0 && number(value, 1, 1000000, &n))
        o->hours = (unsigned)n;
    else
        return false;
    return true;
}

static void list(void)
{
    for (unsigned i = 0; i < scenario_count; i++)
        printf("%-8s %s\n", scenarios[i].name, scenarios[i].what);
}

int main(int argc, char **argv)
{
    static char buffer[1 << 16]; /* stdio's own would be taken from the heap within a run */
    struct sim_options o = {.scenario = "chaos", .seed = 1, .loss = NOT_SAID, .dup = NOT_SAID};
    unsigned passed = 0, failed;
    setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
    if (sodium_init() < 0)
        return 70;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            list();
            return 0;
        }
        if (strcmp(argv[i], "--trace") == 0) {
            o.trace = true;
        } else if (!option(&o, argv[i], i + 1 < argc ? argv[i + 1] : NULL)) {
            fprintf(stderr, "sim-beacons: what is \"%s\" here? See the head of tests/sim/sim.c.\n",
                    argv[i]);
            return 64;
        } else {
            i++;
        }
    }
    if (argc > 1) {
        failed = !one_run(&o, scenario_find(o.scenario));
        passed = !failed;
    } else {
        failed = run_budget(&passed);
    }
    printf("%u passed, %u failed, 0 skipped\n", passed, failed);
    return failed > 0;
}
