/*
 * stage.h - one stage: units of the transformer, their KV cache, and what a plan does to them.
 *
 * In:      a checkpoint while loading; then plans, and hidden states of the stage before (or token
 *          ids, with unit 0).
 * Out:     hidden states for the next stage, or tokens and logits (with the head).
 * Owns:    weights, KV cache and the memory for the rows of a plan; nothing large is allocated
 *          after stage_create().
 * Threads: the compute thread.
 *
 * All rows of a plan go through a unit as one matrix [n_tokens, hidden]; a row's bits do not
 * depend on the others. A plan is done wholly or not at all: when it fails, its rows' sequences
 * hold what they held before `start`. Single rows fail alone, when their numbers stop being finite:
 * see step_result_add_error().
 */
#ifndef MGPT_WORKER_STAGE_H
#define MGPT_WORKER_STAGE_H

#include "kernels/stream.h"
#include "model/checkpoint.h"
#include "model/vocabulary.h"
#include "proto/plan.h"
#include "worker/step_result.h"

struct stage;

struct stage_options {
    int first_unit, last_unit; /* as units.h counts them */
    enum dtype compute;        /* DTYPE_F32 or DTYPE_BF16 */
    int kv_blocks;
    int sequences_max;
    int rows_max;      /* tokens in a plan */
    int outputs_max;   /* outputs in a plan */
    size_t link_bytes; /* device memory that its links will take beside; for the check of room */
    const struct vocabulary *vocabulary; /* borrowed during stage_create(); needed with the head */
};

/* Hidden states of the stage before: [n_tokens, hidden] of the compute type. */
struct stage_input {
    const void *rows;
    bool on_device; /* in the memory of this stage's device; else in the host's */
};

struct stage_memory {
    size_t weight_bytes, file_bytes, kv_bytes, activation_bytes;
    size_t recording_bytes; /* not taken yet: what recordings of steps may take */
};

/*
 * Loads the units and reserves everything.
 *
 * checkpoint: used during the call only.  stream: borrowed until stage_destroy().
 * STATUS_INVALID, STATUS_UNSUPPORTED: the checkpoint or an option; STATUS_NOMEM, on a device before
 * anything is loaded (stage_room.h).  On error *out is NULL.
 */
enum status stage_create(struct stage **out, struct checkpoint *checkpoint,
                         const struct stage_options *options, struct stream *stream,
                         struct error *err);
void stage_destroy(struct stage *stage); /* NULL is fine */

struct stage_memory stage_memory(const struct stage *stage);
struct plan_limits stage_limits(const struct stage *stage);
int stage_hidden(const struct stage *stage);
enum dtype stage_compute(const struct stage *stage);
int stage_kv_used(const struct stage *stage); /* blocks */

/* Frees every sequence. */
void stage_reset(struct stage *stage);

/*
 * Does a plan: checks it, then releases, forks, rows.
 *
 * input: NULL for the stage with unit 0.
 * result: begun by the caller; gets tokens, logits, errors of rows and busy_ns.
 * STATUS_INVALID: the plan is wrong, or does not fit what the sequences hold.  STATUS_NOMEM: the KV
 * pool is used up.
 */
enum status stage_step(struct stage *stage, const Mgpt__StepPlan *plan,
                       const struct stage_input *input, struct step_result *result,
                       struct error *err);

/* Of a plan that failed before: does the releases alone (its forks and rows would have been of no
 * use). */
void stage_skip(struct stage *stage, const Mgpt__StepPlan *plan);

/* After stage_step(): device memory [n_tokens, hidden], until the next step. */
const void *stage_rows_view(const struct stage *stage);

#endif
