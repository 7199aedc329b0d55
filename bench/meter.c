#include "bench/meter.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

uint64_t meter_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t thread_cpu_ns(pid_t pid, const char *thread)
{
    char path[512];
    uint64_t ns = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, thread);
    FILE *f = fopen(path, "r");
    if (!f)
        return 0; /* a thread that has just ended */
    if (fscanf(f, "%" SCNu64, &ns) != 1)
        ns = 0;
    fclose(f);
    return ns;
}

uint64_t meter_cpu_ns(pid_t pid)
{
    char path[64];
    uint64_t ns = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (!tasks)
        return 0;
    for (struct dirent *e = readdir(tasks); e; e = readdir(tasks)) {
        if (e->d_name[0] != '.')
            ns += thread_cpu_ns(pid, e->d_name);
    }
    closedir(tasks);
    return ns;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double meter_percentile(double *values, unsigned count, unsigned p)
{
    qsort(values, count, sizeof *values, by_value);
    unsigned rank = (unsigned)((uint64_t)count * p / 100);
    return values[rank < count ? rank : count - 1];
}
