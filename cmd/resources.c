#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#include "cmd/log.h"
#include "cmd/resources.h"

enum {
    HUGE_PAGE = 2 << 20,
    NOFILE_BASE = 48,     /* standard streams, epoll, listeners, probes, notify, lookups, spare */
    NOFILE_PER_SHARD = 4, /* two sockets, ring, wake */
};

int limits_raise(unsigned shards, unsigned connections)
{
    struct rlimit limit;
    rlim_t least = NOFILE_BASE + (rlim_t)shards * NOFILE_PER_SHARD;
    rlim_t wanted = least + connections;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        setrlimit(RLIMIT_NOFILE, &limit); /* what it gave is read again below */
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
            return -errno;
    }
    if (limit.rlim_cur < least) {
        log_line(LOG_ERROR, "beacon", "too few file descriptors",
                 "limit=%ju needed=%ju hint=\"raise it with ulimit -n or LimitNOFILE=\"",
                 (uintmax_t)limit.rlim_cur, (uintmax_t)least);
        return -EMFILE;
    }
    if (limit.rlim_cur < wanted)
        log_line(LOG_WARN, "beacon", "few file descriptors: fewer HTTP connections",
                 "limit=%ju wanted=%ju", (uintmax_t)limit.rlim_cur, (uintmax_t)wanted);
    return 0;
}

unsigned shards_wanted(const struct config *c)
{
    cpu_set_t cpus;
    if (c->shards > 0)
        return c->shards;
    long count = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus)
                                                               : sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > CONFIG_SHARDS_MAX ? CONFIG_SHARDS_MAX : (unsigned)count;
}

/* Bytes that can be had without swapping, 0 when the host does not say. */
static uint64_t memory_available(void)
{
    char line[128];
    uint64_t kb = 0;
    FILE *f = fopen("/proc/meminfo", "re");
    while (f && kb == 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %" SCNu64, &kb) != 1)
            kb = 0;
    if (f)
        fclose(f);
    return kb * 1024;
}

void *memory_take(size_t size, uint32_t max_nodes)
{
    size = (size + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);
    uint64_t available = memory_available();
    /* Touching more than there is would end us without a word. */
    void *memory = available && size > available ? NULL : aligned_alloc(HUGE_PAGE, size);
    if (!memory) {
        log_line(LOG_ERROR, "beacon", "no memory for the node table",
                 "bytes=%zu available=%" PRIu64 " max-nodes=%" PRIu32, size, available, max_nodes);
        return NULL;
    }
    madvise(memory, size, MADV_HUGEPAGE); /* a wish: fewer TLB misses, faster start */
    memset(memory, 0, size);
    return memory;
}
