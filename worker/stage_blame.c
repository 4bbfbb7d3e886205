/*
 * stage_blame.c - where a number first stopped being finite. The search is cheap when there is
 * none: one look at x.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/stage_state.h"

enum { UNIT_NOT_FOUND = -2, UNIT_BEFORE = -1 };

/* An exponent of all ones is infinity or NaN. */
static bool is_finite_row(const void *row, enum dtype dtype, int n)
{
    bool bad = false;
    if (dtype == DTYPE_BF16) {
        const bf16 *values = row;
        for (int i = 0; i < n; i++)
            bad |= (values[i] & 0x7f80) == 0x7f80;
    } else {
        const uint32_t *values = row; /* f32 as it lies in memory */
        for (int i = 0; i < n; i++)
            bad |= (values[i] & 0x7f800000) == 0x7f800000;
    }
    return !bad;
}

/* The first of rows [first, first + n) of x with such a number, or -1. */
static int find_bad_token(struct stage *stage, int first, int n)
{
    enum dtype dtype = stage->options.compute;
    size_t row_bytes = (size_t)stage->config.hidden * dtype_bytes(dtype);
    for (int i = first; i < first + n; i += STAGE_HOST_ROWS) {
        int here = first + n - i < STAGE_HOST_ROWS ? first + n - i : STAGE_HOST_ROWS;
        stream_download(stage->stream, stage->host_rows,
                        (const char *)stage->buffers.x + (size_t)i * row_bytes,
                        (size_t)here * row_bytes);
        for (int j = 0; j < here; j++)
            if (!is_finite_row((const char *)stage->host_rows + (size_t)j * row_bytes, dtype,
                               stage->config.hidden))
                return i + j;
    }
    return -1;
}

/* Where each row of the plan went bad. */
struct blame {
    int unit;     /* UNIT_NOT_FOUND: not yet */
    int position; /* of its first bad token */
};

static void look(struct stage *stage, const Mgpt__StepPlan *plan, struct blame *blames, int unit)
{
    int first = 0;
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        int bad = blames[r].unit == UNIT_NOT_FOUND
                      ? find_bad_token(stage, first, (int)row->n_tokens)
                      : -1;
        if (bad >= 0)
            blames[r] = (struct blame){unit, (int)row->start + bad - first};
        first += (int)row->n_tokens;
    }
}

static enum status search(struct stage *stage, const Mgpt__StepPlan *plan, const struct stage_input *input,
                          int n_tokens, struct blame *blames, struct error *err)
{
    enum status st = stage_load_input(stage, input, n_tokens, err);
    if (st == STATUS_OK)
        look(stage, plan, blames, stage->weights->embedding ? 0 : UNIT_BEFORE);
    for (int i = 0; st == STATUS_OK && i < stage->weights->n_layers; i++) {
        st = stage_run_layer(stage, i, n_tokens, (int)plan->n_rows, err);
        if (st == STATUS_OK)
            look(stage, plan, blames, stage->weights->first_layer + i + 1);
    }
    return st;
}

static enum status report(const Mgpt__StepPlan *plan, const struct blame *blames,
                          struct step_result *result, struct error *err)
{
    for (size_t r = 0; r < plan->n_rows; r++) {
        if (blames[r].unit == UNIT_NOT_FOUND)
            continue;
        struct step_error bad = {.row = (uint32_t)r,
                                 .output = PLAN_WHOLE_ROW,
                                 .sequence = plan->rows[r]->sequence,
                                 .position = (uint32_t)blames[r].position,
                                 .unit = blames[r].unit,
                                 .status = STATUS_INVALID};
        char where[32] = "before this stage";
        if (bad.unit == 0)
            snprintf(where, sizeof(where), "in the embedding");
        else if (bad.unit > 0) /* layers are counted from 0, as the checkpoint's tensors are */
            snprintf(where, sizeof(where), "in layer %d", bad.unit - 1);
        if (step_result_add_error(
                result, &bad, "sequence %llu, position %u: numbers stop being finite %s",
                (unsigned long long)bad.sequence, bad.position, where) != STATUS_OK)
            return error_set(err, STATUS_INVALID, "more than %d rows are not finite",
                             PLAN_ROW_ERRORS_MAX);
    }
    return STATUS_OK;
}

enum status stage_blame(struct stage *stage, const Mgpt__StepPlan *plan, const struct stage_input *input,
                        int n_tokens, struct step_result *result, struct error *err)
{
    if (find_bad_token(stage, 0, n_tokens) < 0)
        return STATUS_OK;
    struct blame *blames = calloc(plan->n_rows, sizeof(*blames));
    if (!blames)
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of %zu rows", plan->n_rows);
    for (size_t r = 0; r < plan->n_rows; r++)
        blames[r].unit = UNIT_NOT_FOUND;
    enum status st = search(stage, plan, input, n_tokens, blames, err);
    if (st == STATUS_OK)
        st = report(plan, blames, result, err);
    free(blames);
    return st;
}
