/*
 * share_queue.h - the units of an operation, dealt to threads in contiguous runs; whoever is done
 * early takes units from the far ends of the others' runs.
 *
 * Units that are best done together, by one thread, form items: the owner takes its items whole,
 * but for the last one, and others take single units.
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
    int n_threads, item_units;
    struct {
        _Alignas(64) _Atomic uint64_t run; /* next unit in the high half, end in the low one */
    } threads[STREAM_THREADS_MAX];
};

/* n_items of item_units each, item after item, in n_threads runs that differ by one item at most.
 * Before the threads start. */
void share_queue_init(struct share_queue *queue, int n_items, int item_units, int n_threads);

/* The next *n units of the thread's own run, all of one item, else one unit of another's; returns
 * the first of them. -1: none is left. */
int share_queue_take(struct share_queue *queue, int thread_index, int *n);

#endif
