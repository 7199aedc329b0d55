/* reasons - why things failed, and how often: constant texts with their counts. One thread. */
#ifndef BEACON_BENCH_REASONS_H
#define BEACON_BENCH_REASONS_H

#include <stdint.h>

enum { REASONS_MAX = 32 }; /* different texts; there are fewer in the generator */

struct reasons {
    unsigned kinds;
    const char *why[REASONS_MAX];
    uint64_t count[REASONS_MAX];
};
void reasons_add(struct reasons *r, const char *why);
/* As a JSON object on stdout. */
void reasons_print(const struct reasons *r);

#endif
