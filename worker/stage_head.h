/*
 * stage_head.h - from hidden states to tokens: final norm, the needed part of the head, guidance
 * and draws.
 *
 * In:      the plan's outputs and the last hidden states.
 * Out:     draws and logits in the step's result.
 * Owns:    memory for the rows that want logits, worked through in batches of fixed size (batches
 *          change no bit).
 * Threads: the compute thread.
 *
 * For draws of codes only the ids between the smallest and the largest code are computed, for
 * listed ids those between the first and the last; for text and whole logits everything.
 */
#ifndef MGPT_WORKER_STAGE_HEAD_H
#define MGPT_WORKER_STAGE_HEAD_H

#include "kernels/stream.h"
#include "model/vocabulary.h"
#include "worker/stage_weights.h"
#include "worker/step_result.h"

struct stage_head;

/*
 * weights: borrowed.  vocabulary: used during the call only.
 * STATUS_INVALID: the tokenizer has codes that the model has not.
 */
enum status stage_head_create(struct stage_head **out, const struct stage_weights *weights,
                              const struct vocabulary *vocabulary, int outputs_max,
                              struct error *err);
void stage_head_destroy(struct stage_head *head);       /* NULL is fine */
size_t stage_head_bytes(const struct stage_head *head); /* of the stream, besides the weights */

/* Of it, what is known before there is a head: all but masks. */
size_t stage_head_work_bytes(const struct model_config *config, enum dtype compute);

/*
 * Answers every output of the plan. x: device memory [n_tokens, hidden].
 *
 * An output that cannot be answered because its logits are NaN gets an error in `result` instead.
 * STATUS_NOMEM; STATUS_INVALID: more errors than PLAN_ROW_ERRORS_MAX.
 */
enum status stage_head_run(struct stage_head *head, const Mgpt__StepPlan *plan, const void *x,
                           int n_tokens, struct step_result *result, struct error *err);

#endif
