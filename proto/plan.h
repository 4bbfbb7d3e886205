/*
 * plan.h - what a StepPlan and a StepResult may contain, checked before they are sent and after
 * they came.
 *
 * Pure: no state, no memory. What depends on a stage's own state (positions held, free blocks, the
 * expected epoch and number) is checked by worker/stage.c and worker/control.c.
 */
#ifndef MGPT_PROTO_PLAN_H
#define MGPT_PROTO_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/mgpt.pb-c.h"

enum {
    PLAN_TOKENS_MAX = 65536, /* limit of Load.rows_max */
    PLAN_ROWS_MAX = 4096,
    PLAN_OUTPUTS_MAX = 16384,          /* draws in a plan */
    PLAN_LOGITS_MAX = 64,              /* LOGITS outputs in a plan: they come back whole, ... */
    PLAN_LOGITS_BYTES_MAX = 128 << 20, /* ... all in one frame */
    PLAN_FORKS_MAX = 4096,
    PLAN_RELEASES_MAX = 65536,
    PLAN_SAMPLINGS_MAX = 4096,
    PLAN_LISTED_MAX = 65536, /* allowed or forbidden ids of all outputs of a plan together */
    PLAN_QUEUE_MAX = 144,    /* accepted plans that wait in a stage; one more is refused */
    PLAN_UNITS_MAX = 1026,   /* limit of a model: 1,024 layers */
    PLAN_KV_BLOCKS_MAX = 1 << 24,
    PLAN_SEQUENCES_MAX = 1 << 16,
    PLAN_ACTIVATION_MS_MAX = 3600 * 1000,
    PLAN_ENDPOINT_BYTES_MAX = 256,
    PLAN_ROW_ERRORS_MAX = 256, /* RowErrors in a result; outputs beyond fail as a whole plan */
    PLAN_DRAW_SEEDS_MAX = 65536,
    PLAN_BLOCK_POSITIONS = 64,
    PLAN_PICTURE_SIDE_MAX = 8192,          /* pixels, each way, of a picture that a codec takes */
    PLAN_PICTURE_PIXELS_MAX = 2048 * 2048, /* and all of them; limit of Load.pixels_max */
};

/* What the model and the loaded stage allow. */
struct plan_limits {
    uint32_t rows_max;      /* tokens in a plan (Load.rows_max) */
    uint32_t outputs_max;   /* outputs in a plan (Load.outputs_max) */
    uint32_t vocab;         /* token ids are below */
    uint32_t max_positions; /* start + tokens of a row at most */
};

/*
 * STATUS_INVALID names the row, fork or output, what was found and expected. Checked: epoch and
 * number at least 1, all counts, ids, positions and finite numbers; that no sequence occurs in two
 * rows or is made by two forks, that roles pair up with equal numbers of outputs, that offsets and
 * lists of ids ascend.
 */
enum status plan_check(const Mgpt__StepPlan *plan, const struct plan_limits *limits,
                       struct error *err);

#define PLAN_WHOLE_ROW UINT32_MAX /* RowError.output */

/* Tokens, and outputs without those of unconditional rows, of a checked plan. */
int plan_n_tokens(const Mgpt__StepPlan *plan);
int plan_n_outputs(const Mgpt__StepPlan *plan);

/*
 * Checks a result against the plan it answers. is_last: from the last stage, so each output of a
 * plan that went well has its token, its logits or its error, in the order of rows and outputs.
 * Other stages send errors alone.
 */
enum status plan_check_result(const Mgpt__StepResult *result, const Mgpt__StepPlan *plan,
                              bool is_last, uint32_t vocab, struct error *err);

/* Checks a Load by itself; n_units: of the model (model/units.h). */
enum status plan_check_load(const Mgpt__Load *load, uint32_t n_units, struct error *err);

#endif
