/*
 * cpu_list.c - the usual notation of taskset and cgroups.
 */
#include "worker/cpu_list.h"

#include <ctype.h>
#include <sched.h>
#include <stdlib.h>

static enum status add_cpu(int cpus[CPU_LIST_MAX], int *n, long cpu, struct error *err)
{
    for (int i = 0; i < *n; i++)
        if (cpus[i] == cpu)
            return error_set(err, STATUS_INVALID, "CPU %ld is listed twice", cpu);
    if (*n == CPU_LIST_MAX)
        return error_set(err, STATUS_INVALID, "more than %d CPUs", CPU_LIST_MAX);
    cpus[(*n)++] = (int)cpu;
    return STATUS_OK;
}

/* A number up to CPU_NUMBER_MAX; -1 when there is none. */
static long parse_number(const char **text)
{
    if (!isdigit((unsigned char)**text))
        return -1;
    char *end;
    long number = strtol(*text, &end, 10);
    *text = end;
    return number <= CPU_NUMBER_MAX ? number : -1;
}

enum status cpu_list_parse(int cpus[CPU_LIST_MAX], int *n, const char *text, struct error *err)
{
    *n = 0;
    for (const char *at = text;;) {
        long first = parse_number(&at), last = first;
        if (*at == '-') {
            at++;
            last = parse_number(&at);
        }
        if (first < 0 || last < first || (*at != ',' && *at != '\0'))
            return error_set(err, STATUS_INVALID, "'%s' is no list of CPUs like 0-3,8", text);
        for (long cpu = first; cpu <= last; cpu++) {
            enum status st = add_cpu(cpus, n, cpu, err);
            if (st != STATUS_OK)
                return st;
        }
        if (*at++ == '\0')
            return STATUS_OK;
    }
}

int cpu_list_n_allowed(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
