/*
 * attention_walk.h - how an attention launch is cut into units, and which thread does which.
 *
 * A unit is some consecutive kv heads and some consecutive rows of one segment, so few that its
 * query vectors are at most `queries_max` (or one row and head). The launch's units in a row are
 * cut into slices of about equal cost; each thread has a run of them, and who is done early takes
 * some of the others' (share_queue.h).
 */
#ifndef MGPT_KERNELS_CPU_ATTENTION_WALK_H
#define MGPT_KERNELS_CPU_ATTENTION_WALK_H

#include "kernels/attention_launch.h"
#include "kernels/cpu/share_queue.h"

struct unit_slices {
    const struct attention_launch *l;
    int queries_max, rows_a_unit;
    int64_t cost; /* of all */
    int n;
    struct share_queue queue;
};

/* Rows of a segment that a unit has at most. */
int unit_rows(const struct attention_shape *shape, int queries_max);

/* Before the threads start. */
void unit_slices_init(struct unit_slices *slices, const struct attention_launch *l, int queries_max,
                      int n_threads);

struct unit_place {
    const struct kv_segment *segment;
    int first, n_rows;    /* rows of the segment */
    int kv_head, n_heads; /* the first, and how many kv heads */
};

struct unit_walk {
    struct unit_slices *slices;
    int thread_index;
    int64_t from, to; /* of the whole cost: the slices under way */
    /* Cost of what lies before the next head, and up to the middle of the last one. */
    int64_t passed, last_middle;
    int segment, first, kv_head; /* of the next head */
};

void unit_walk_begin(struct unit_walk *walk, struct unit_slices *slices, int thread_index);

/* The next unit of this thread, for it alone: of heads (of a run of rows) whose middle lies in its
 * slices. 0: no more. */
int unit_walk_next(struct unit_walk *walk, struct unit_place *place);

/* The segment and kv head that come behind, most likely this thread's too. 0: the launch ends. */
int unit_walk_peek(const struct unit_walk *walk, struct unit_place *place);

#endif
