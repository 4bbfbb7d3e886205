/*
 * share_queue.c - runs are taken from by compare and exchange: the owner in front, others behind.
 */
#include "kernels/cpu/share_queue.h"

static uint32_t next_of(uint64_t run)
{
    return (uint32_t)(run >> 32);
}

static uint32_t end_of(uint64_t run)
{
    return (uint32_t)run;
}

static uint32_t left_in(uint64_t run)
{
    return end_of(run) > next_of(run) ? end_of(run) - next_of(run) : 0;
}

void share_queue_init(struct share_queue *queue, int n_items, int item_units, int n_threads)
{
    queue->n_threads = n_threads;
    queue->item_units = item_units;
    for (int t = 0; t < n_threads; t++) {
        int64_t first, last;
        stream_share(n_items, t, n_threads, &first, &last);
        uint64_t run = (uint64_t)(first * item_units) << 32 | (uint64_t)(last * item_units);
        atomic_store_explicit(&queue->threads[t].run, run, memory_order_relaxed);
    }
}

/* A run begins with whole items until its last one is begun: only then, or at its end, it may be
 * cut inside of one. */
static int take_own(struct share_queue *queue, int thread_index, int *n)
{
    _Atomic uint64_t *run = &queue->threads[thread_index].run;
    uint64_t seen = atomic_load_explicit(run, memory_order_relaxed);
    while (left_in(seen) > 0) {
        uint32_t n_taken =
            left_in(seen) > (uint32_t)queue->item_units ? (uint32_t)queue->item_units : 1;
        if (atomic_compare_exchange_weak_explicit(run, &seen, seen + ((uint64_t)n_taken << 32),
                                                  memory_order_relaxed, memory_order_relaxed)) {
            *n = (int)n_taken;
            return (int)next_of(seen);
        }
    }
    return -1;
}

/* From whoever has most left. */
static int take_anothers(struct share_queue *queue)
{
    for (;;) {
        int richest = -1;
        uint64_t most = 0;
        for (int t = 0; t < queue->n_threads; t++) {
            uint64_t seen = atomic_load_explicit(&queue->threads[t].run, memory_order_relaxed);
            if (left_in(seen) > left_in(most)) {
                most = seen;
                richest = t;
            }
        }
        if (richest < 0)
            return -1;
        if (atomic_compare_exchange_strong_explicit(&queue->threads[richest].run, &most, most - 1,
                                                    memory_order_relaxed, memory_order_relaxed))
            return (int)end_of(most) - 1;
    }
}

int share_queue_take(struct share_queue *queue, int thread_index, int *n)
{
    int unit = take_own(queue, thread_index, n);
    if (unit < 0)
        *n = 1;
    return unit >= 0 || queue->n_threads == 1 ? unit : take_anothers(queue);
}
