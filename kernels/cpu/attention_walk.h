/*
 * attention_walk.h - the order in which a thread goes through its part of an attention launch.
 *
 * Units: for each segment, for each run of its rows, for each kv head. Operands of a unit: for each split of 256 positions
 * the keys of its blocks, then their values, panel by panel. A second walk some operands ahead tells what to fetch.
 */
#ifndef MGPT_KERNELS_CPU_ATTENTION_WALK_H
#define MGPT_KERNELS_CPU_ATTENTION_WALK_H

#include "kernels/attention_launch.h"

struct unit_place {
    const struct kv_segment *segment;
    int first, n_rows; /* rows of the segment */
    int kv_head;
};

struct unit_walk {
    const struct attention_launch *l;
    int rows_a_unit;
    int64_t from, to, passed; /* cost of this thread's share, and of the units before the next */
    int segment, first, kv_head; /* of the next */
};

/* The share of thread_index: the units whose middle lies in its part of the whole cost. */
void unit_walk_begin(struct unit_walk *walk, const struct attention_launch *l, int rows_a_unit, int thread_index,
                     int n_threads);

/* 0: no more. */
int unit_walk_next(struct unit_walk *walk, struct unit_place *place);

struct operand_walk {
    struct unit_walk units;
    struct unit_place place;
    int n_positions;    /* of the unit; 0: a new one is due */
    int split, operand; /* first position of the split; operands of it that were told */
};

void operand_walk_begin(struct operand_walk *walk, const struct unit_walk *units);

/* Address and bytes of the next operand; 0 bytes: no more. */
size_t operand_walk_next(struct operand_walk *walk, const char **address);

#endif
