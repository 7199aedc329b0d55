/* parts - pure code timed in one thread: a table of parts, each the best of several passes, which
 * is what the code can do, with the least of what the machine did meanwhile. */
#ifndef BEACON_BENCH_PARTS_H
#define BEACON_BENCH_PARTS_H

#include <stddef.h>
#include <stdint.h>

/* `run` makes `calls` calls. */
struct part {
    const char *name;
    void (*run)(void *arg, unsigned calls);
    void *arg;
    unsigned calls;
    void (*prepare)(void *arg, unsigned calls); /* before each pass, not timed; NULL: nothing */
};

/* Prints one JSON object: ns of a call of each. */
void parts_print(const struct part *parts, unsigned count);

/* Zeroed and touched, 64-aligned. Ends the process when there is none. */
void *parts_memory(size_t size);
_Noreturn void parts_die(const char *what);

/* Ids are spread like real ones, not counted up. */
static inline uint32_t parts_id(uint32_t node)
{
    return (node + 1) * 2654435761u;
}
/* One of so many; the same sequence in every run. */
uint32_t parts_random(uint32_t below);

/* Results go here, so that no loop is optimised away. */
extern volatile uint64_t parts_used;

#endif
