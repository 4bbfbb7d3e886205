/*
 * plan_message.h - a plan of the scheduler as the StepPlan message, and a StepResult as the
 * scheduler's result.
 *
 * In:      struct plan (scheduler/plan.h).   Out: Mgpt__StepPlan, whose lists of ids are views of
 * the plan's own. Owns:    one block of memory that grows and is used again for the next plan.
 */
#ifndef MGPT_DAEMON_PLAN_MESSAGE_H
#define MGPT_DAEMON_PLAN_MESSAGE_H

#include <stddef.h>

#include "base/error.h"
#include "proto/mgpt.pb-c.h"
#include "scheduler/plan.h"

struct plan_message {
    Mgpt__StepPlan body; /* valid as long as the plan it was built from */
    char *memory;
    size_t memory_bytes, used_bytes;
};

/* STATUS_NOMEM. A zeroed struct is a fresh one; end it with plan_message_fini(). */
enum status plan_message_build(struct plan_message *message, const struct plan *plan,
                               struct error *err);
void plan_message_fini(struct plan_message *message);

/*
 * The drawn tokens of a checked result in the order scheduler_complete() wants them. tokens:
 * [plan->n_draws].
 *
 * Outputs that failed (RowError) get token 0. failures: [plan->n_rows]; texts are views of the
 * result.
 */
void plan_message_read_result(const Mgpt__StepResult *result, const struct plan *plan,
                              int32_t *tokens, struct plan_row_failure *failures, int *n_failures);

#endif
