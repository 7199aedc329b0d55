#include "bench/reasons.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void reasons_add(struct reasons *r, const char *why)
{
    unsigned i = 0;
    while (i < r->kinds && strcmp(r->why[i], why) != 0)
        i++;
    assert(i < REASONS_MAX);
    r->why[i] = why;
    r->count[i]++;
    if (i == r->kinds)
        r->kinds++;
}

void reasons_print(const struct reasons *r)
{
    printf("{");
    for (unsigned i = 0; i < r->kinds; i++)
        printf("%s\"%s\": %" PRIu64, i ? ", " : "", r->why[i], r->count[i]);
    printf("}");
}
