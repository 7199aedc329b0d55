/* memory - how the parts of a lane share one block: each begins on a cache line. */
#ifndef BEACON_SERVER_MEMORY_H
#define BEACON_SERVER_MEMORY_H

#include <stddef.h>

static inline size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

#endif
