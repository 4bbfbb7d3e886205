/*
 * plan_queue.h - the plans a stage has accepted and not yet done, in order of their numbers without
 * gaps.
 *
 * In:      plans with the epoch and number that is next.
 * Out:     the oldest one, and since when it is the oldest.
 * Owns:    the accepted messages. At most PLAN_QUEUE_MAX.
 * Threads: the compute thread. Pure but for the clock given as an argument.
 */
#ifndef MGPT_WORKER_PLAN_QUEUE_H
#define MGPT_WORKER_PLAN_QUEUE_H

#include "proto/message.h"
#include "proto/plan.h"

struct plan_queue {
    uint64_t epoch;                       /* 0: nothing is accepted */
    uint64_t next_number;                 /* of the plan to be accepted next */
    struct message plans[PLAN_QUEUE_MAX]; /* a ring */
    int first, n;
    int64_t head_since_ns; /* when the oldest became the oldest */
};

/* Drops everything and expects plans of `epoch` from first_number on; epoch 0 ends all acceptance.
 */
void plan_queue_reset(struct plan_queue *queue, uint64_t epoch, uint64_t first_number);

/*
 * Accepts a StepPlan message, which is taken (left empty) only then.
 * STATUS_INVALID: another epoch or number than expected.  STATUS_FULL: PLAN_QUEUE_MAX wait. The
 * number is not used up.
 */
enum status plan_queue_accept(struct plan_queue *queue, struct message *message, int64_t now_ns,
                              struct error *err);

/* The oldest plan, NULL when none waits. */
const Mgpt__StepPlan *plan_queue_head(const struct plan_queue *queue);

/* Ends the oldest. */
void plan_queue_pop(struct plan_queue *queue, int64_t now_ns);

/* Number of the oldest plan, or of the one that will be next. */
uint64_t plan_queue_head_number(const struct plan_queue *queue);

#endif
