/*
 * stage_state.h - what the files of the stage share: stage.c (plans), stage_forward.c (parts of
 * layers), stage_head.c (outputs).
 */
#ifndef MGPT_WORKER_STAGE_STATE_H
#define MGPT_WORKER_STAGE_STATE_H

#include "kernels/kv.h"
#include "worker/kv_cache.h"
#include "worker/stage.h"
#include "worker/stage_head.h"
#include "worker/stage_weights.h"

/* Memory for the rows of a plan, device, reserved once. */
struct stage_buffers {
    void *x;      /* [rows_room, hidden] the residual stream */
    void *normed; /* [rows_room, hidden] */
    void *delta;  /* [rows_room, hidden] what a block adds */
    void *wide;   /* [rows_room, ...] qkv and attention output, then gate, up and their product */
    size_t hidden_bytes, wide_bytes;
};

struct stage {
    struct stage_options options;
    struct model_config config;
    struct stream *stream; /* borrowed */
    struct stage_weights *weights;
    struct kv_cache *kv;
    struct rope_table *rope; /* NULL without attention parts */
    size_t rope_bytes;
    struct attention_shape shape;
    struct stage_head *head; /* NULL when the head is elsewhere */
    size_t rows_room; /* rows_max, and what products write behind them: linear_padded_rows() */
    struct stage_buffers buffers;
    int32_t *ids;                /* [rows_max] of the plan's tokens */
    struct kv_segment *segments; /* [rows_max] of the plan's rows */
};

/* ---- stage_forward.c ---- */

/* Fills x from the token ids or from `input`. */
enum status stage_load_input(struct stage *stage, const struct stage_input *input, int n_tokens,
                             struct error *err);

/* Runs units [first, first + n) of this stage, all of them parts of layers, over x. */
enum status stage_run_parts(struct stage *stage, int first, int n, int n_tokens, int n_segments,
                            struct error *err);

/* ---- stage_blame.c ---- */

/*
 * Looks for numbers in x that are not finite; when there are some, runs the stage again part by
 * part to find where each row of the plan first had one, and adds an error a row. KV is written
 * again with the same bits; x is as it was. A row whose input was not finite already is reported
 * with unit -1.
 */
enum status stage_blame(struct stage *stage, const Mgpt__StepPlan *plan,
                        const struct stage_input *input, int n_tokens, struct step_result *result,
                        struct error *err);

#endif
