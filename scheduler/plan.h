/*
 * plan.h - one step of one micro-batch, as the scheduler decides it and every stage executes it.
 *
 * In:      decisions of scheduler.c.   Out: the daemon turns a plan into the StepPlan message for
 * ALL stages. Order:   stages execute plans in the order of their numbers, which rise by one
 * without gaps in an epoch. Within a plan: first `release`, then `forks`, then the rows. Owns:
 * nothing here does; all pointers lead into the scheduler's memory and live until the plan's result
 *          is told (scheduler_complete, scheduler_fail_plan) or scheduler_reset.
 */
#ifndef MGPT_SCHEDULER_PLAN_H
#define MGPT_SCHEDULER_PLAN_H

#include <stdint.h>

enum { PLAN_BLOCK_TOKENS = 64 }; /* positions of one sequence in a block of the KV cache */

/* A guided request is two sequences. Its CONDITIONAL row is directly followed by its UNCONDITIONAL
 * row of the same request; both have equally many outputs, and the k-th outputs belong together:
 * the last stage draws one token from l = u + guidance * (c - u). A row without a twin in this plan
 * is PLAIN: text, guidance 1, and the rows of a prefill that do not reach the last token yet. The
 * two rows of a pair may differ in length. */
enum plan_role { PLAN_PLAIN, PLAN_CONDITIONAL, PLAN_UNCONDITIONAL };

enum plan_output_kind {
    PLAN_DRAW,  /* sample one token */
    PLAN_LOGITS /* send the raw f32 logits [vocab] back; the row is PLAIN */
};

/* Which ids a draw may give, and which top-k counts. */
enum plan_set {
    PLAN_SET_TEXT,  /* every id but picture codes and `listed` (a picture without room may not
                       start); text_top_k */
    PLAN_SET_CODES, /* picture codes only; image_top_k */
    PLAN_SET_LISTED /* `listed` only (size tokens of a picture); image_top_k */
};

struct plan_output {
    int offset;  /* index into the row's tokens whose logits are wanted */
    int ordinal; /* DRAW: of the drawn token among all generated tokens of its request, forced ones
                  * counted too, from 0; LOGITS: index into the request's list of positions */
    enum plan_output_kind kind;
    enum plan_set set;
    int n_listed;
    const int32_t *listed; /* [n_listed] ids, ascending */
};

struct plan_row {
    uint64_t request;  /* for the daemon's eyes: whose row this is */
    uint64_t sequence; /* the stages' key for keys and values; never used twice */
    int start;    /* position of tokens[0] in the sequence; everything before it is in the cache */
    int n_tokens; /* at least 1 */
    const int32_t *tokens;
    enum plan_role role;
    int sampling; /* index into the plan's sampling table; both rows of a pair name the same entry
                   */
    int n_outputs;
    const struct plan_output *outputs;
};

struct plan_sampling {
    uint64_t seed;
    uint32_t picture_index; /* n-th picture of the job: part of the counter of the random numbers */
    float temperature;      /* 0 = the best token */
    float guidance;         /* used by pairs */
    int image_top_k, text_top_k;
};

/* The new sequence `to` starts with the first n_positions of `from`: full blocks shared by reference
 * count, never written again, the rest copied into a block of its own. */
struct plan_fork {
    uint64_t from, to;
    int n_positions;
};

struct plan {
    uint64_t epoch;  /* as of the last scheduler_reset */
    uint64_t number; /* from 1 in each epoch, without gaps */
    int slot;        /* micro-batch slot, for logs */
    int n_release, n_forks, n_rows, n_samplings;
    const uint64_t
        *release; /* sequences whose blocks fall free; a stage that never saw one ignores it */
    const struct plan_fork *forks;
    const struct plan_row
        *rows; /* none: a plan that only releases, sent when nothing else is to do */
    const struct plan_sampling *samplings;
    int n_tokens; /* sum over the rows */
    int n_draws;  /* tokens the last stage must answer with: DRAW outputs, a pair counted once */
    int64_t n_context; /* positions whose keys are read: sum over rows of start + n_tokens */
};

/* A row that failed while the plan as a whole went well: numbers that are not finite. Its request
 * fails alone. */
struct plan_row_failure {
    int row;
    const char *text;
};

/* What the last stage answers. */
struct plan_result {
    uint64_t number;
    int n_tokens;          /* equal to the plan's n_draws */
    const int32_t *tokens; /* in the order of rows and outputs; UNCONDITIONAL rows give none; any
                              value for failed rows */
    int n_failures;
    const struct plan_row_failure *failures;
};

#endif
