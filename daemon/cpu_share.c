/*
 * cpu_share.c - divides a set of cores.
 */
#include "daemon/cpu_share.h"

#include "base/check.h"

void cpu_share(cpu_set_t *out, const cpu_set_t *allowed, int index, int n_workers)
{
    int n_cpus = CPU_COUNT(allowed);
    CHECK(index >= 0);
    CHECK(index < n_workers);
    CHECK(n_cpus > 0);
    int first = n_cpus >= n_workers ? (int)((long)n_cpus * index / n_workers) : index % n_cpus;
    int end = n_cpus >= n_workers ? (int)((long)n_cpus * (index + 1) / n_workers) : first + 1;
    CPU_ZERO(out);
    int ordinal = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, allowed))
            continue;
        if (ordinal >= first && ordinal < end)
            CPU_SET(cpu, out);
        ordinal++;
    }
}
