/* meter - what a run costs: the clock, and the CPU time of another process. */
#ifndef BEACON_BENCH_METER_H
#define BEACON_BENCH_METER_H

#include <stdint.h>
#include <sys/types.h>

uint64_t meter_now_ns(void);

/* CPU time of all threads of `pid` (io_uring's own are threads of it too), from the scheduler's
 * account, in ns. Kernel work that its system calls cause is in it. 0 when there is no such
 * process. */
uint64_t meter_cpu_ns(pid_t pid);

/* The p-th percentile of `count` values; sorts them. */
double meter_percentile(double *values, unsigned count, unsigned p);

#endif
