/*
 * cpu_share.h - which cores each worker process gets: its own when there are enough, else shared in
 * turn.
 *
 * Pure: the allowed cores come in as a set, so that a test can name them.
 */
#ifndef MGPT_DAEMON_CPU_SHARE_H
#define MGPT_DAEMON_CPU_SHARE_H

#include <sched.h>

/*
 * Cores of worker `index` of n_workers, out of `allowed`: contiguous runs whose lengths differ by
 * at most one. With fewer cores than workers, worker i gets the (i mod cores)-th.
 */
void cpu_share(cpu_set_t *out, const cpu_set_t *allowed, int index, int n_workers);

#endif
