#include "bench/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/meter.h"

enum { PASSES = 7 };

volatile uint64_t parts_used;

_Noreturn void parts_die(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

void *parts_memory(size_t size)
{
    size = (size + 63) & ~(size_t)63;
    void *memory = aligned_alloc(64, size);
    if (!memory)
        parts_die("out of memory");
    return memset(memory, 0, size);
}

uint32_t parts_random(uint32_t below) /* xorshift64* */
{
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 2685821657736338717u >> 32) * below >> 32);
}

static double measure(const struct part *p)
{
    double best = 0;
    for (unsigned pass = 0; pass < PASSES; pass++) {
        if (p->prepare)
            p->prepare(p->arg, p->calls);
        uint64_t begin_ns = meter_now_ns();
        p->run(p->arg, p->calls);
        double ns = (double)(meter_now_ns() - begin_ns) / p->calls;
        if (pass == 0 || ns < best)
            best = ns;
    }
    return best;
}

void parts_print(const struct part *parts, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        printf("%s\"%s\": %.2f", i ? ", " : "{", parts[i].name, measure(&parts[i]));
    printf("}");
}
