/*
 * cost.h - how long a stage needs for a step of so many tokens and so much context: t(rows,
 * context).
 *
 * Measured times of steps go in; predictions, and the number of micro-batches they make best, come
 * out: the same measurements give the same predictions.
 *
 * t = p0 + piecewise linear in rows + p_context * context. A roofline max(weights, rows * products)
 * is close to this, and so are the steps that tiles of a product make. A Kalman filter fits these
 * few numbers for each stage: it starts at the prior, the first measurement sets the scale, later
 * ones correct it; old ones fade, single outliers are clipped.
 */
#ifndef MGPT_SCHEDULER_COST_H
#define MGPT_SCHEDULER_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct cost_model;
struct scheduler_stage_prior;

enum status cost_create(struct cost_model **out, int n_stages,
                        const struct scheduler_stage_prior *priors, struct error *err);
void cost_destroy(struct cost_model *cost); /* NULL is fine */

/* A step of n_tokens rows that read n_context positions took busy_ns in `stage`. */
void cost_observe(struct cost_model *cost, int stage, int n_tokens, int64_t n_context,
                  int64_t busy_ns);

/* True when every stage has been measured at least once: before, predictions are the prior's. */
bool cost_is_measured(const struct cost_model *cost);

/* Predicted time of a step in one stage; never below 1. */
double cost_stage_ns(const struct cost_model *cost, int stage, double n_tokens, double n_context);

/* The same for the slowest stage, and the sum over all stages. */
double cost_step_ns(const struct cost_model *cost, double n_tokens, double n_context,
                    double *sum_ns);

/*
 * Time of a round (one token of every request) when n_tokens rows and n_context positions are split
 * evenly over n_slots micro-batches: either the slowest stage is never idle, or one micro-batch's
 * way through all stages and back counts. Without a micro-batch more than stages, what steps differ
 * is lost. overhead_ns: what the way costs beside the steps (hops, the turn through the daemon).
 */
double cost_round_ns(const struct cost_model *cost, int n_slots, double n_tokens, double n_context,
                     double overhead_ns);

/* The number of micro-batches in [1, n_slots_max] with the shortest round, of those that keep the
 * slowest stage busy. Of those within a few percent of it, the most up to one more than stages, of
 * one stage the fewest. current: the present number, 0 = none; it is kept a little longer than
 * another is taken. */
int cost_best_slots(const struct cost_model *cost, int n_slots_max, int current, double n_tokens,
                    double n_context, double overhead_ns);

/* What one more row and one more position of context cost in the slowest stage at this load:
 * weights for balancing. */
void cost_marginal_ns(const struct cost_model *cost, double n_tokens, double n_context,
                      double *token_ns, double *context_ns);

#endif
