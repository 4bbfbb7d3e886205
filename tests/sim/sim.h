/*
 * sim.h - a pipeline as discrete events: the real scheduler, stages that take the time a formula or
 * measurements say, links with delays, and requests that come by a plan.
 *
 * In:      struct sim_options.   Out: struct sim_result.   Deterministic: same options and seed,
 * same result. A stage executes plans in the order of their numbers; a plan reaches the next stage
 * hop_us after it was done; the last stage's answer reaches the scheduler after turn_us / 2, and a
 * new plan the first stage after as much.
 */
#ifndef MGPT_TESTS_SIM_SIM_H
#define MGPT_TESTS_SIM_SIM_H

#include <stdint.h>

#include "base/error.h"
#include "scheduler/cost.h"
#include "scheduler/scheduler.h"

enum { SIM_SIZES_MAX = 8, SIM_REQUESTS_MAX = 1 << 20 };

enum sim_arrivals {
    SIM_CLOSED, /* `concurrency` requests live always: each that ends is replaced */
    SIM_BURST,  /* n_requests at once */
    SIM_POISSON /* n_requests, `rate` a minute */
};

struct sim_size {
    int width, height;
    double share;
};

struct sim_options {
    int n_stages;
    /* A step of a stage: fixed + max(weight + positions * context, tokens * token), over the
     * stage's speed. */
    double fixed_us, weight_us, token_us, context_us;
    double speeds[SCHEDULER_STAGES_MAX];
    const struct cost_model *measured;            /* instead of the formula; NULL = formula */
    double measured_scales[SCHEDULER_STAGES_MAX]; /* of all steps measured, over what it says */
    double jitter; /* steps take up to so much longer, evenly spread: 0.1 = 10 % */
    double hop_us, turn_us;

    enum sim_arrivals arrivals;
    int n_requests, concurrency;
    int n_warm; /* BURST: so many at once before what is measured, as mgpt bench --warm */
    double rate;
    double warm_s, seconds; /* CLOSED: what is measured begins after warm_s and lasts `seconds` */
    struct sim_size sizes[SIM_SIZES_MAX];
    int n_sizes;
    int prompt_tokens;   /* between half and one and a half of it, */
    int template_tokens; /* behind so many that are the same in all prompts */
    double guidance;
    uint64_t seed;

    int kv_blocks, max_positions, micro_batches, prefill_chunk, rows_max, running_max;
};

/* Idle time of stages by its cause, as shares of n_stages * wall. */
struct sim_losses {
    double no_work; /* no request lives */
    double few;     /* fewer requests run than there are stages, and none waits */
    double memory;  /* as `few`, but requests wait for cache blocks */
    double way;     /* the stage's next plan is on a link or on its turn through the scheduler */
    double uneven;  /* it is being computed, or waits, in a stage before: uneven stages or
                       micro-batches, prefill */
};

struct sim_result {
    double wall_s, busy_share; /* U over what was measured */
    double filled_share; /* U without the time in which there were too few requests to fill the
                            stages */
    struct sim_losses losses;
    double images_per_min, tokens_per_s, rows_per_read;
    double latency_s[3], first_row_s[3]; /* p50, p95, p99 */
    double mean_slots, mean_running;
    int n_finished;
    int64_t n_plans, n_events, preempted;
    /* Mean of |estimate - truth| / truth: of what was left half way, and of the whole time, told to
     * those that waited. */
    double half_estimate_error, queue_estimate_error;
};

void sim_options_init(struct sim_options *options);

/* STATUS_INVALID: an option is out of range, or a request cannot ever run. */
enum status sim_run(const struct sim_options *options, struct sim_result *result,
                    struct error *err);

#endif
