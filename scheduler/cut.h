/*
 * cut.h - the units of a model (embedding, layers, final norm + head) dealt to stages, in order.
 *
 * In:      the model's sizes, the number of stages, what each stage can hold and how fast it is.
 * Out:     for each stage the contiguous units [first, last]; unit 0 is the embedding, 1..n_layers
 * are the layers, n_layers + 1 is the final norm with the head. Pure:    no state, no I/O.
 */
#ifndef MGPT_SCHEDULER_CUT_H
#define MGPT_SCHEDULER_CUT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct model_config;

enum { CUT_UNITS_MAX = 1026, CUT_STAGES_MAX = 64, CUT_TEXT_BYTES = 64 };

struct cut_unit {
    int64_t weight_bytes; /* resident */
    double time;          /* of one step, any measure; the cut evens out the sums */
};

struct cut_stage {
    int first_unit, last_unit;
    int64_t weight_bytes;
    double time; /* sum of its units over its speed */
};

/* The units of a model, [n_layers + 2] in the caller's storage. Time is counted in bytes read by a
 * step inside a picture: the embedding reads one row, the head only the rows of n_codes picture
 * codes. weight_item_bytes: of an element as the stages hold it, 2 for bf16. STATUS_UNSUPPORTED:
 * too many layers. */
enum status cut_units(struct cut_unit *units, int units_max, int *n_units,
                      const struct model_config *config, int weight_item_bytes, int n_codes,
                      struct error *err);

/*
 * The cut with the smallest largest stage time, then the smallest largest bytes; every stage gets a
 * unit.
 *
 * speeds: [n_stages] relative, NULL = all equal.   memory_bytes: [n_stages] limits of weights, NULL
 * = none. STATUS_INVALID: more stages than units, or below 1.   STATUS_NOMEM: no cut fits the
 * memory.
 */
enum status cut_balance(struct cut_stage *stages, int n_stages, const struct cut_unit *units,
                        int n_units, const double *speeds, const int64_t *memory_bytes,
                        struct error *err);

/* A cut by hand: stages separated by commas, each a unit or FIRST-LAST, units being `embed`, a
 * layer from 0, `head`: "0-8,9-17", "embed,0-17,head", "embed-8,9-head". Embedding and head join
 * the first and last stage when not named. STATUS_INVALID: syntax, a gap, an overlap or a layer the
 * model does not have. */
enum status cut_parse(struct cut_stage *stages, int stages_max, int *n_stages, const char *text,
                      const struct cut_unit *units, int n_units, struct error *err);

/* Speeds for the next cut from measured step times of this one: time of a stage's units / measured.
 * [n_stages] */
void cut_measured_speeds(double *speeds, const struct cut_stage *stages, const int64_t *measured_ns,
                         int n_stages, const struct cut_unit *units);

/* The units of a stage as text: "embed,0-3", "4-7,head", "embed,0-3,head". */
void cut_format(char text[CUT_TEXT_BYTES], int first_unit, int last_unit, int n_layers);

#endif
