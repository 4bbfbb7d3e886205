/*
 * attention_walk.h - the order in which a thread goes through its part of an attention launch.
 *
 * A unit is some consecutive kv heads and some consecutive rows of one segment, so few that its
 * query vectors are at most `queries_max` (or one row and head). Operands of a unit: for each split
 * of 256 positions the keys, block after block and in each head after head, then likewise the
 * values, panel by panel. A second walk some operands ahead tells what to fetch.
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

struct operand_walk {
    struct unit_walk units;
    struct unit_place place;
    int n_positions;        /* of the unit; 0: a new one is due */
    int split;              /* its first position */
    int values;             /* 0: keys are told, 1: values */
    int block, head, panel; /* of the next operand, in the split and in the unit */
};

void operand_walk_begin(struct operand_walk *walk, const struct unit_walk *units);

/* Address and bytes of the next operand; 0 bytes: no more. */
size_t operand_walk_next(struct operand_walk *walk, const char **address);

#endif
