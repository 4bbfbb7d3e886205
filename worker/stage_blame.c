/*
 * stage_blame.c - where a number first stopped being finite. The search is cheap when there is
 * none: one look at x.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/finite.h"
#include "worker/stage_state.h"

enum { UNIT_NOT_FOUND = -2, UNIT_BEFORE = -1 };

/* *found: the first of rows [first, first + n) of x with such a number, or -1. */
static enum status find_bad_token(struct stage *stage, int *found, int first, int n,
                                  struct error *err)
{
    enum dtype dtype = stage->options.compute;
    size_t row_bytes = (size_t)stage->config.hidden * dtype_bytes(dtype);
    enum status st =
        first_not_finite(found, (const char *)stage->buffers.x + (size_t)first * row_bytes, dtype,
                         n, stage->config.hidden, stage->stream);
    if (st != STATUS_OK)
        return error_set(err, st, "a look for numbers that are not finite failed (%s)",
                         status_name(st));
    *found += *found >= 0 ? first : 0;
    return STATUS_OK;
}

/* Where each row of the plan went bad. */
struct blame {
    int unit;     /* UNIT_NOT_FOUND: not yet */
    int position; /* of its first bad token */
};

static enum status look(struct stage *stage, const Mgpt__StepPlan *plan, struct blame *blames,
                        int unit, struct error *err)
{
    enum status st = STATUS_OK;
    int first = 0;
    for (size_t r = 0; st == STATUS_OK && r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        int bad = -1;
        if (blames[r].unit == UNIT_NOT_FOUND)
            st = find_bad_token(stage, &bad, first, (int)row->n_tokens, err);
        if (bad >= 0)
            blames[r] = (struct blame){unit, (int)row->start + bad - first};
        first += (int)row->n_tokens;
    }
    return st;
}

static enum status search(struct stage *stage, const Mgpt__StepPlan *plan,
                          const struct stage_input *input, int n_tokens, struct blame *blames,
                          struct error *err)
{
    enum status st = stage_load_input(stage, input, n_tokens, err);
    if (st == STATUS_OK)
        st = look(stage, plan, blames, stage->weights->embedding ? 0 : UNIT_BEFORE, err);
    int first = stage->weights->first_part, end = first + stage->weights->n_parts;
    for (int unit = first; st == STATUS_OK && unit < end; unit++) {
        st = stage_run_parts(stage, unit, 1, n_tokens, (int)plan->n_rows, err);
        if (st == STATUS_OK)
            st = look(stage, plan, blames, unit, err);
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
            snprintf(where, sizeof(where), "in layer %d", units_layer(bad.unit));
        if (step_result_add_error(
                result, &bad, "sequence %llu, position %u: numbers stop being finite %s",
                (unsigned long long)bad.sequence, bad.position, where) != STATUS_OK)
            return error_set(err, STATUS_INVALID, "more than %d rows are not finite",
                             PLAN_ROW_ERRORS_MAX);
    }
    return STATUS_OK;
}

enum status stage_blame(struct stage *stage, const Mgpt__StepPlan *plan,
                        const struct stage_input *input, int n_tokens, struct step_result *result,
                        struct error *err)
{
    int bad;
    enum status st = find_bad_token(stage, &bad, 0, n_tokens, err);
    if (st != STATUS_OK || bad < 0)
        return st;
    struct blame *blames = calloc(plan->n_rows, sizeof(*blames));
    if (!blames)
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of %zu rows", plan->n_rows);
    for (size_t r = 0; r < plan->n_rows; r++)
        blames[r].unit = UNIT_NOT_FOUND;
    st = search(stage, plan, input, n_tokens, blames, err);
    if (st == STATUS_OK)
        st = report(plan, blames, result, err);
    free(blames);
    return st;
}
