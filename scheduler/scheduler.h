/*
 * scheduler.h - decides what every stage does next: who runs, in which micro-batch, with which
 * tokens.
 *
 * In:      requests, cancellations, results and measured times; each call carries the time.
 * Out:     step plans (plan.h), events about requests, figures.
 * Owns:    the tokens and state of every request from submit until its last event was taken.
 * Threads: none, no clock, no I/O: the same calls give the same plans, so a test or tests/sim can
 * replay them.
 *
 * The daemon's loop:
 *     after any call below:  while ((plan = scheduler_next_plan(s, now))) send it to all stages;
 *                            while (scheduler_next_event(s, &event)) tell the client;
 *     on a StepResult of any stage:       scheduler_measure(...)
 *     on one of the last stage:           scheduler_complete(...) or scheduler_fail_plan(...)
 *     when stages were started anew:      scheduler_reset(...): all requests go on from their
 * tokens
 */
#ifndef MGPT_SCHEDULER_SCHEDULER_H
#define MGPT_SCHEDULER_SCHEDULER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "scheduler/plan.h"

struct scheduler;
struct vocabulary;

enum {
    SCHEDULER_STAGES_MAX = 64,
    SCHEDULER_SLOTS_MAX = 2 * SCHEDULER_STAGES_MAX + 2, /* micro-batches in flight */
    SCHEDULER_QUEUE_MAX = 1 << 20,                      /* largest queue_max that is accepted */
    SCHEDULER_RUNNING_MAX = 4096,                       /* largest running_max that is accepted */
    SCHEDULER_ROWS_MAX = 1 << 16,                       /* largest rows_max that is accepted */
    SCHEDULER_PROMPT_MAX = 1 << 20 /* tokens of a prompt, whatever the positions */
};

/* What is known of the speed of one stage before anything was measured. Zeros are fine: then a
 * stage of a middling machine is assumed until the first results come. */
struct scheduler_stage_prior {
    int64_t
        weight_ns; /* one read of the stage's weights: the time of a step of one row, no context */
    int64_t token_ns;  /* products of one token, when they and not the reading bind */
    double context_ns; /* reading keys and values of one position of one sequence */
};

struct scheduler_options {
    const struct vocabulary *vocabulary; /* borrowed, outlives the scheduler */
    uint64_t epoch;                      /* named by plans until the first scheduler_reset [1] */
    int vocab;            /* ids of the model are below; 0 = those of the vocabulary [0] */
    int n_stages;         /* 1 .. SCHEDULER_STAGES_MAX */
    int kv_blocks;        /* blocks of PLAN_BLOCK_TOKENS positions in the pool of every stage */
    int max_positions;    /* of one sequence */
    int queue_max;        /* requests that wait; more are refused with STATUS_FULL [256] */
    int running_max;      /* requests in the stages at once [256] */
    int rows_max;         /* tokens of a micro-batch: the stages' buffers [512] */
    int micro_batches;    /* in flight; 0 = from measured times [0] */
    int prefill_chunk;    /* prompt tokens of a micro-batch; 0 = from measured times [0] */
    double prefill_delay; /* how much longer prefill may make a step of others: 0.5 = half [0.5] */
    const struct scheduler_stage_prior *priors; /* [n_stages], may be NULL; copied */
};

/* Fills the defaults named in brackets; the others are 0 and must be set. */
void scheduler_options_init(struct scheduler_options *options);

/* STATUS_INVALID: an option is out of range.  STATUS_NOMEM.  On error *out is NULL. */
enum status scheduler_create(struct scheduler **out, const struct scheduler_options *options,
                             struct error *err);
void scheduler_destroy(struct scheduler *scheduler); /* NULL is fine */

enum scheduler_mode {
    SCHEDULER_PICTURE, /* the prompt ends with start, height and width token; the rest of the
                          picture is generated */
    SCHEDULER_FREE,    /* text, which may open pictures; ends at end of turn, max_tokens or the
                          positions */
    SCHEDULER_PROBE    /* logits at listed positions of the prompt; nothing is generated */
};

struct scheduler_request {
    uint64_t id; /* the caller's name for it, unique among the requests that live */
    enum scheduler_mode mode;
    int priority;          /* higher goes first; among equals the earlier [0] */
    const int32_t *prompt; /* [n_prompt] copied */
    int n_prompt;
    const int32_t *generated; /* [n_generated] tokens an earlier life of this request drew: it goes
                                 on behind them */
    int n_generated;
    int max_tokens;                /* FREE: generated tokens at most, forced ones counted too */
    struct plan_sampling sampling; /* guidance 1 = none: one sequence only */
    const int32_t *positions; /* PROBE: [n_positions] ascending indices into the prompt; copied */
    int n_positions;
    int chunk; /* prompt tokens of a step, for this request alone; 0 = as the scheduler likes */
};

/*
 * Puts a request into the queue.
 *
 * STATUS_INVALID:     the prompt, sampling or positions are wrong; the id lives already.
 * STATUS_UNSUPPORTED: well formed, but longer than max_positions or than the block pool.
 * STATUS_FULL:        queue_max requests wait.   STATUS_NOMEM.
 * On error nothing is held. The text of the error can be shown to a client.
 */
enum status scheduler_submit(struct scheduler *scheduler, int64_t now_ns,
                             const struct scheduler_request *request, struct error *err);

/* Ends a request wherever it is: its event CANCELED comes at once, its blocks fall free in the next
 * plan, and a token still under way is dropped. STATUS_NOT_FOUND: no such request lives. */
enum status scheduler_cancel(struct scheduler *scheduler, int64_t now_ns, uint64_t id,
                             struct error *err);

/* The next step to send, or NULL when none can be formed before the next call that changes
 * something. */
const struct plan *scheduler_next_plan(struct scheduler *scheduler, int64_t now_ns);

/*
 * The last stage's answer to a plan.
 *
 * STATUS_NOT_FOUND: no plan of this number is in flight (an answer of before a reset); nothing
 * changed. STATUS_INVALID:   the tokens do not fit the plan (their number, an id the draw could not
 * give); the plan is treated as failed, as by scheduler_fail_plan.
 */
enum status scheduler_complete(struct scheduler *scheduler, int64_t now_ns,
                               const struct plan_result *result, struct error *err);

/* A plan that yielded no result: each of its requests ends with FAILED and this text.
 * STATUS_NOT_FOUND as above. */
enum status scheduler_fail_plan(struct scheduler *scheduler, int64_t now_ns, uint64_t number,
                                const char *text, struct error *err);

/* How long one stage was busy with a plan, from every stage's StepResult, when that comes; in any
 * order with the calls above. Unknown plans and stages are ignored. */
void scheduler_measure(struct scheduler *scheduler, int64_t now_ns, uint64_t number, int stage,
                       int64_t busy_ns);

/* The stages lost their memory, or will be told to. Plans in flight are forgotten, plans name the
 * given epoch from now on and their numbers start at 1 again, and every request that ran is put in
 * front of the queue with its tokens; they are filled in again when it is admitted. The daemon asks
 * for no plan before all stages are ready for that epoch. */
void scheduler_reset(struct scheduler *scheduler, int64_t now_ns, uint64_t epoch);

enum scheduler_event_kind {
    SCHEDULER_STARTED,  /* admitted for the first time */
    SCHEDULER_TOKENS,   /* tokens were generated, drawn and forced ones alike */
    SCHEDULER_FINISHED, /* the last three end a request; exactly one of them comes for each */
    SCHEDULER_FAILED,
    SCHEDULER_CANCELED
};

enum scheduler_finish { SCHEDULER_COMPLETE, SCHEDULER_END_OF_TURN, SCHEDULER_LENGTH };

struct scheduler_event {
    enum scheduler_event_kind kind;
    uint64_t request;
    int n_tokens;          /* TOKENS: how many are new; FINISHED: how many there are in all */
    int first_ordinal;     /* ordinal of tokens[0] */
    const int32_t *tokens; /* TOKENS, FINISHED; borrowed until the next call of any function here */
    enum scheduler_finish finish; /* FINISHED */
    const char *text;             /* FAILED: why; borrowed likewise */
};

/* Takes the next event; false when there is none. Not taking them costs no memory: tokens gather in
 * one event. */
bool scheduler_next_event(struct scheduler *scheduler, struct scheduler_event *event);

struct scheduler_progress {
    bool running;         /* in the stages; else it waits */
    int queue_position;   /* 1 = next; 0 when running */
    int tokens_done;      /* generated so far, forced ones counted too */
    int tokens_total;     /* exact for PICTURE; the most there can be for FREE; 0 for PROBE */
    int64_t started_ns;   /* time of the first admission; 0 before */
    int64_t remaining_ns; /* estimate until the end; -1 when nothing was measured yet */
};

/* STATUS_NOT_FOUND: no such request lives. */
enum status scheduler_progress(const struct scheduler *scheduler, int64_t now_ns, uint64_t id,
                               struct scheduler_progress *out, struct error *err);

/* What would a further request of this many generated tokens and blocks wait for: for Retry-After
 * and for the choice among pipelines. In ns until all that is queued and running now ended; -1 when
 * nothing was measured. */
int64_t scheduler_backlog_ns(const struct scheduler *scheduler);

struct scheduler_figures {
    int n_queued, n_running, n_in_flight; /* requests, requests, plans */
    int n_slots;                          /* micro-batches wanted now */
    int kv_blocks_used, kv_blocks_total;
    uint64_t submitted, refused, finished, failed, canceled,
        preempted; /* requests since creation */
    uint64_t plans, plans_failed;
    uint64_t tokens_committed; /* generated, forced ones counted too */
    uint64_t rows_computed;    /* tokens that went through the stages: prompt and generated */
    uint64_t prefill_rows;     /* of these, tokens of prompts or of refilling */
    uint64_t prefix_queries;   /* tokens of prompts that began to be fed */
    uint64_t prefix_hits;      /* of these, taken over from another request */
    int64_t active_ns;         /* time in which at least one request lived */
    int64_t busy_ns;           /* sum over stages of all measured step times */
    int64_t useful_ns;    /* of these, the share of rows whose request was not failed or canceled */
    double busy_share;    /* U = useful_ns / (n_stages * active_ns) */
    double rows_per_read; /* rows_computed / plans: how often a read of the weights is used */
    int64_t round_ns;     /* predicted time of one token of every running request; 0 = unknown */
};

void scheduler_figures(const struct scheduler *scheduler, int64_t now_ns,
                       struct scheduler_figures *out);

/* Busy time of one stage since creation, for per-stage metrics. */
int64_t scheduler_stage_busy_ns(const struct scheduler *scheduler, int stage);

#endif
