/*
 * step_result.h - room for one StepResult, filled while a plan runs and sent from where it lies.
 *
 * In:      draws, logits and errors in the order of the plan's rows and outputs.
 * Out:     message, ready to be packed.
 * Owns:    all lists; logits are allocated for the plans that ask for them and freed by the next
 *          begin.
 * Threads: the compute thread alone.
 */
#ifndef MGPT_WORKER_STEP_RESULT_H
#define MGPT_WORKER_STEP_RESULT_H

#include <stdbool.h>

#include "base/error.h"
#include "proto/plan.h"

struct step_result;

/* outputs_max: of a plan. STATUS_NOMEM. */
enum status step_result_create(struct step_result **out, int outputs_max, struct error *err);
void step_result_destroy(struct step_result *result); /* NULL is fine */

/* Empties it for a new plan. */
void step_result_begin(struct step_result *result, uint64_t epoch, uint64_t number,
                       uint32_t stage_index);

/* The plan failed as a whole: answers and errors of rows are dropped. */
void step_result_fail(struct step_result *result, enum status status, const char *text);

void step_result_add_drawn(struct step_result *result, uint32_t row, uint32_t output,
                           uint32_t token);

/* Room for logits [vocab] to be filled by the caller; NULL: no memory. */
float *step_result_add_logits(struct step_result *result, uint32_t row, uint32_t output,
                              uint32_t vocab);

/* Takes the last logits back. */
void step_result_drop_logits(struct step_result *result);

struct step_error {
    uint32_t row, output; /* output: PLAN_WHOLE_ROW for none */
    uint64_t sequence;
    uint32_t position;
    int32_t unit; /* -1: not known */
    enum status status;
};

/* STATUS_FULL: PLAN_ROW_ERRORS_MAX are there already. */
enum status step_result_add_error(struct step_result *result, const struct step_error *error,
                                  const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The message inside; numbers (busy_ns, ...) may be set on it. */
Mgpt__StepResult *step_result_message(struct step_result *result);

#endif
