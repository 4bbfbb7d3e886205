/*
 * cpu_list.h - "0-3,8" to CPU numbers, and which CPUs this process may use.
 */
#ifndef MGPT_WORKER_CPU_LIST_H
#define MGPT_WORKER_CPU_LIST_H

#include "base/error.h"

enum { CPU_LIST_MAX = 1024, CPU_NUMBER_MAX = 65535 };

/* STATUS_INVALID: not of that form, a number twice, or more than CPU_LIST_MAX. *n is at least 1
 * otherwise. */
enum status cpu_list_parse(int cpus[CPU_LIST_MAX], int *n, const char *text, struct error *err);

/* CPUs that this process may run on; 1 when the system does not say. */
int cpu_list_n_allowed(void);

#endif
