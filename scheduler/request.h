/*
 * request.h - one request inside the scheduler: its tokens, what the grammar wants next, and how
 * much of it is in the cache.
 *
 * In:      what a client asked; tokens drawn by the last stage.   Out: which tokens to feed, what
 * may be drawn next. Owns:    the array of tokens: prompt, then generated ones. Sequences are
 * windows on it, so nothing is kept twice. Not here: when a request runs, and with whom
 * (admission.c, microbatch.c, form.c).
 *
 * A guided request has two sequences. The conditional one holds all tokens; the unconditional one
 * holds those of the open picture from its start token on, with positions from 0, and lives only
 * while a picture with known size is open.
 */
#ifndef MGPT_SCHEDULER_REQUEST_H
#define MGPT_SCHEDULER_REQUEST_H

#include "model/unirep.h"
#include "scheduler/scheduler.h"

enum {
    REQUEST_FORCED_MAX = 2 /* forced tokens behind a drawn one: the last new line and the end */
};

enum request_state { REQUEST_QUEUED, REQUEST_RUNNING, REQUEST_ENDED };

struct sequence {
    uint64_t id;  /* in plans; 0 = no stage knows it yet */
    int base;     /* index in the request's tokens of position 0 */
    int n_fed;    /* positions that are in plans, answered or not */
    int n_held;   /* positions that are certainly in the stages: their plans were answered */
    int n_blocks; /* accounted for them */
};

/* What a request may not exceed. */
struct request_limits {
    const struct vocabulary *vocabulary;
    int vocab; /* ids are below */
    int max_positions;
    int kv_blocks;
};

struct list {
    struct request *first, *last;
};
struct link {
    struct request *previous, *next;
};

struct request {
    uint64_t id, arrival; /* arrival: rises with every submit */
    enum scheduler_mode mode;
    int priority, chunk;
    struct plan_sampling sampling;
    bool guided;

    int32_t *tokens; /* [capacity] */
    int n_prompt, n_tokens, capacity;
    int n_fresh; /* tokens that came with the last draw: they are fed as one row */
    struct unirep grammar;
    struct sequence conditional, unconditional;
    bool has_unconditional;
    int *positions; /* PROBE: [n_positions] */
    int n_positions;

    enum request_state state;
    bool in_prefill;    /* runs, and no draw of it was planned since it joined */
    bool awaits_draw;   /* a plan with its draw is under way */
    int n_in_flight;    /* plans that hold a row of it */
    uint64_t planned;   /* number of the newest plan with a row of it */
    uint64_t forked;    /* number of the newest plan in which another takes over its prompt */
    uint64_t admitted;  /* order of admission */
    int64_t started_ns; /* -1 before the first admission */
    int slot;           /* micro-batch; -1 when not running */
    int home;           /* slot it is counted in: where it goes when its own is formed next */
    int blocks_final;   /* at its longest */
    int load_rows;      /* what the slot counts for it */
    int64_t load_context;

    struct link by_place;       /* in the queue, or in its slot */
    struct request *by_id;      /* next in the same bucket */
    struct request *next_event; /* in the list of those with something to tell */
    bool in_events, tell_start;
    int n_told;                       /* generated tokens already told */
    enum scheduler_event_kind ending; /* FINISHED, FAILED or CANCELED when ENDED */
    enum scheduler_finish finish;
    bool ending_told;
    char text[ERROR_TEXT_BYTES]; /* FAILED */
};

/* Checks and copies. Errors as scheduler_submit. The request may be at its end already (all tokens
 * were given). */
enum status request_create(struct request **out, const struct scheduler_request *spec,
                           const struct request_limits *limits, struct error *err);
void request_destroy(struct request *request); /* NULL is fine */

static inline int request_blocks(int64_t n_positions)
{
    return (int)((n_positions + PLAN_BLOCK_TOKENS - 1) / PLAN_BLOCK_TOKENS);
}

static inline int request_n_generated(const struct request *request)
{
    return request->n_tokens - request->n_prompt;
}

/* Pictures have a known length and are never sent back to the queue for memory; the others can be.
 */
static inline bool request_is_picture(const struct request *request)
{
    return request->mode == SCHEDULER_PICTURE;
}

/* Tokens that are known but in no plan yet. */
int request_need(const struct request *request, const struct sequence *sequence);

/* True when another row can be formed without waiting for an answer. */
bool request_is_ready(const struct request *request);

/* Whether `id` may be drawn next. */
bool request_allows(const struct request *request, int vocab, int32_t id);

/* What the next draw may give. `listed` has room for vocabulary->n_sizes + 1 ids. */
void request_describe_draw(const struct request *request, struct plan_output *output,
                           int32_t *listed);

/* Takes a drawn token and the forced ones behind it. The id must be allowed. Returns true when the
 * request is at its end (request->finish says how). *closed: the unconditional sequence of a
 * finished picture, id 0 when there is none. */
bool request_push(struct request *request, int32_t id, struct sequence *closed);

/* Forgets what the stages hold: all tokens are to be fed again, under new sequence ids. */
void request_forget_cache(struct request *request);

/* Generated tokens in all: exact for pictures, the most there can be for FREE, 0 for PROBE. */
int request_tokens_total(const struct request *request);

/* Steps still needed once the known tokens are fed: every drawn token is one. The most there can be
 * for FREE. */
int request_rounds_left(const struct request *request);

/* Blocks the request holds `rounds` from now, when it feeds all it knows and one draw a round;
 * never too few. */
int request_blocks_after(const struct request *request, int rounds);

/* Blocks at its longest. */
int request_blocks_final(const struct request *request);

static inline int request_blocks_held(const struct request *request)
{
    return request->conditional.n_blocks + request->unconditional.n_blocks;
}

#endif
