/*
 * share_queue.h - the units of an operation, dealt to threads in contiguous runs; whoever is done
 * early takes units from the far ends of the others' runs.
 *
 * Threads that read memory side by side do not get equal parts of its bandwidth, and another
 * program may hold one of them up: with fixed shares all then wait for the last. A unit's result
 * must not depend on who computes it.
 */
#ifndef MGPT_KERNELS_CPU_SHARE_QUEUE_H
#define MGPT_KERNELS_CPU_SHARE_QUEUE_H

#include <stdatomic.h>

#include "kernels/stream.h"

struct share_queue {
    int n_threads;
    struct {
        _Alignas(64) _Atomic uint64_t run; /* next unit in the high half, end in the low one */
    } threads[STREAM_THREADS_MAX];
};

/* Units 0..n_units - 1 in n_threads runs that differ by one unit at most. Before the threads start.
 */
void share_queue_init(struct share_queue *queue, int n_units, int n_threads);

/* The next unit of the thread's own run, else one of another's; -1: none is left. */
int share_queue_take(struct share_queue *queue, int thread_index);

#endif
