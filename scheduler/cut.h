/*
 * cut.h - the units of a model (model/units.h: embedding, halves of layers, head) dealt to stages,
 * in order.
 *
 * In:      the model's sizes, the number of stages, what each stage can hold and how fast it is.
 * Out:     for each stage the contiguous units [first, last].
 * Pure:    no state, no I/O.
 */
#ifndef MGPT_SCHEDULER_CUT_H
#define MGPT_SCHEDULER_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/units.h"

enum { CUT_STAGES_MAX = 64, CUT_ROWS = 16 /* of a step, for times */ };

struct cut_unit {
    int64_t weight_bytes; /* resident */
    double time;          /* of one step, any measure; the cut evens out the sums */
};

struct cut_stage {
    int first_unit, last_unit;
    int64_t weight_bytes;
    double time; /* sum of its units over its speed */
};

struct cut_question {
    const struct model_config *config;
    int item_bytes;   /* of weights, keys and values as the stages hold them, 2 for bf16 */
    int n_codes;      /* of pictures */
    int n_positions;  /* keys and values that a row reads, in the middle of a picture */
    int n_stages;     /* with a text: its number of stages, or 1 */
    const char *text; /* a cut by hand, or NULL */
};

/* The units of a model, in the caller's storage; returns their number. Time is counted in bytes
 * read by a step of CUT_ROWS rows inside a picture: the embedding reads a row each, the head only
 * the rows of the picture codes, an attention part the keys and values of every row. */
int cut_units(struct cut_unit units[UNITS_MAX], const struct cut_question *question);

/*
 * The cut with the smallest largest stage time; among those the one that cuts the fewest layers in
 * two, then the one with the smallest largest bytes. Every stage gets a unit.
 *
 * n_units: of a whole model.  speeds: [n_stages] relative, NULL = all equal.   memory_bytes:
 * [n_stages] limits of weights, NULL = none. STATUS_INVALID: more stages than units, or below 1.
 * STATUS_NOMEM: no cut fits the memory.
 */
enum status cut_balance(struct cut_stage *stages, int n_stages, const struct cut_unit *units,
                        int n_units, const double *speeds, const int64_t *memory_bytes,
                        struct error *err);

/*
 * A cut by hand: stages separated by commas, each a unit or FIRST-LAST, units being `embed`, a
 * layer from 0, half a layer (`8a` the attention part, `8f` the feed-forward part), `head`:
 * "0-8,9-17", "embed,0-17,head", "embed-8,9-head", "0-8a,8f-17". Embedding and head join the first
 * and last stage when not named. STATUS_INVALID: syntax, a gap, an overlap or a layer the model
 * does not have.
 */
enum status cut_parse(struct cut_stage *stages, int stages_max, int *n_stages, const char *text,
                      const struct cut_unit *units, int n_units, struct error *err);

/* The cut of a model by hand or, without a text, the best one of equal stages. Errors as of
 * cut_parse() and cut_balance(); STATUS_INVALID also for a text of another number of stages. */
enum status cut_model(struct cut_stage stages[CUT_STAGES_MAX], int *n_stages,
                      const struct cut_question *question, struct error *err);

#endif
