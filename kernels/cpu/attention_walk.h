/*
 * attention_walk.h - the order in which a thread goes through its part of an attention launch.
 *
 * A unit is some consecutive kv heads and some consecutive rows of one segment, so few that its
 * query vectors are at most `queries_max` (or one row and head).
 */
#ifndef MGPT_KERNELS_CPU_ATTENTION_WALK_H
#define MGPT_KERNELS_CPU_ATTENTION_WALK_H

#include "kernels/attention_launch.h"

struct unit_place {
    const struct kv_segment *segment;
    int first, n_rows;    /* rows of the segment */
    int kv_head, n_heads; /* the first, and how many kv heads */
};

struct unit_walk {
    const struct attention_launch *l;
    int queries_max, rows_a_unit;
    int64_t from, to,
        passed; /* cost of this thread's share, and of what lies before the next head */
    int segment, first, kv_head; /* of the next head */
};

/* The share of thread_index: the heads (of a run of rows) whose middle lies in its part of the
 * whole cost. */
void unit_walk_begin(struct unit_walk *walk, const struct attention_launch *l, int queries_max,
                     int thread_index, int n_threads);

/* 0: no more. */
int unit_walk_next(struct unit_walk *walk, struct unit_place *place);

#endif
