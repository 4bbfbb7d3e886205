/*
 * state.h - the scheduler's own memory, shared by its parts and by nobody else.
 *
 *     scheduler.c    the doors: submit, cancel, complete, fail, reset, events
 *     admission.c    the queue, the pool of blocks, who may start, who may grow, who goes back
 *     microbatch.c   slots: how many, who belongs to which, moving between them
 *     form.c         one slot's next plan
 *     account.c      figures, remaining times, measured times
 *
 * A running request belongs to one slot. A slot's next plan is formed when its previous draws are
 * answered, so a slot is a micro-batch that travels round. Everything a plan needs is reserved at
 * creation; only submit allocates.
 */
#ifndef MGPT_SCHEDULER_STATE_H
#define MGPT_SCHEDULER_STATE_H

#include "scheduler/cost.h"
#include "scheduler/request.h"

enum {
    STATE_LOGITS_MAX = 64, /* LOGITS outputs of a plan: each is a whole row of the vocabulary */
    STATE_HISTORY = 512,   /* plans whose times can still be measured; a power of two */
    STATE_RELEASES_PER_REQUEST = 4, /* sequences one request can end between two plans */
    STATE_LISTED_DRAWS = 8          /* draws of a plan that may list every size */
};

/* A picture's way to its end, for the sum of curves. */
struct curve {
    const struct request *request;
    int n_rounds; /* until its end */
};

/* What the plan means to us. */
struct plan_entry {
    struct request *request;
    int row;       /* its (first) row */
    int n_rows;    /* 1, or 2 for a guided request */
    bool draws;    /* its answer brings a token */
    int n_held[2]; /* positions of its sequences that the stages hold when the plan was answered; 0
                      = no row */
};

/* A plan in flight, with the memory its public face points into. */
struct step {
    struct plan plan;
    bool in_flight;
    int n_entries, n_listed, n_outputs, n_logits;
    struct plan_row *rows;
    int32_t *tokens;
    struct plan_output *outputs;
    struct plan_sampling *samplings;
    uint64_t *release;
    struct plan_fork *forks;
    int32_t *listed;
    struct plan_entry *entries;
};

struct slot {
    struct list members; /* by_place, in the order in which they are served next */
    int n_members;
    int n_rows;           /* sequences of its members */
    int64_t n_context;    /* positions of those */
    int n_in_flight;      /* plans */
    int n_waiting;        /* of these, plans with draws: the next plan waits for them */
    uint64_t tried;       /* the pass in which no plan could be formed of it */
    int64_t answered_ns;  /* when its newest draws came; 0 when it paused since */
    uint64_t ready_order; /* slots are served in the order in which they became ready */
};

/* What is remembered of a plan until all its times came. */
struct history {
    uint64_t number;
    int n_tokens, n_measured;
    int64_t n_context, busy_ns, formed_ns;
    int64_t measured_ns; /* when the newest of its times came, the stages' in order; 0 before */
    int64_t answered_ns; /* 0 before */
    double useful;       /* share of the rows whose request was still wanted */
};

/* What is known of a stage's times beside t(rows, context). */
struct stage_times {
    int64_t busy_ns;     /* since creation */
    uint64_t number;     /* of the newest plan whose time came */
    int64_t measured_ns; /* when that was */
    double way_ns;       /* from the stage before, or the scheduler, to here; learned */
    int n_ways;          /* of these seen; saturates */
};

struct scheduler {
    int64_t now_ns; /* of the newest call */
    struct scheduler_options options;
    struct request_limits limits;
    struct cost_model *cost;

    uint64_t epoch, next_number, next_sequence, next_arrival, next_admission, next_ready;
    struct request **by_id; /* [n_buckets] */
    int n_buckets;
    int n_requests; /* objects, ended ones whose last event was not taken included */

    struct list queue; /* by priority, then arrival */
    int n_queued;
    int n_running, n_running_pictures;
    int n_prefill;            /* of these, in_prefill */
    struct request **running; /* [running_max] */
    bool admit_soon;          /* something changed since the head of the queue was refused */
    double admit_again;       /* round at which time alone may have changed it */
    double rounds;            /* since creation: plans with draws over slots */
    double next_start_rounds; /* when the next picture may start, while starts are spread */
    struct curve *curves;     /* [running_max + 1] scratch of admission.c */
    int (*needs)[2];          /* [running_max] likewise */
    struct request **members; /* [running_max] scratch of form.c */

    int kv_used;
    uint64_t *release; /* [release_max] sequences the next plan frees */
    int n_release, release_max;

    struct slot *slots; /* [n_slots_max] */
    int n_slots_max, n_slots;
    int n_rows; /* sums over slots */
    int64_t n_context;
    uint64_t pass;
    bool regroup_soon;
    int exchanges; /* that may still be tried since somebody came or left */
    uint64_t regroup_again;
    double token_ns, context_ns; /* balance weights of a row and of a position */
    double allowed_ns;           /* a plan with prefill may take so long, in the slowest stage */

    struct step *steps; /* [n_steps] */
    int n_steps, n_in_flight;
    int rows_max, listed_max;
    struct history history[STATE_HISTORY];
    struct stage_times *stages; /* [n_stages] */
    double round_factor;        /* rounds as they are over rounds as predicted, learned */
    struct request *first_event, *last_event;

    struct scheduler_figures figures; /* counters; the rest is filled in when asked */
    int64_t active_since_ns;
    struct request *taken; /* its last event was handed out: freed by the next call */
};

/* ---- lists (scheduler.c) ---- */
void state_list_append(struct list *list, struct request *request);
void state_list_insert_before(struct list *list, struct request *place, struct request *request);
void state_list_remove(struct list *list, struct request *request);

/* ---- scheduler.c ---- */
struct request *state_find(const struct scheduler *s, uint64_t id);
void state_release(struct scheduler *s, struct sequence *sequence);
/* Takes a request out of queue or slot, frees its blocks and leaves its last event. text: FAILED
 * only. */
void state_end(struct scheduler *s, struct request *r, enum scheduler_event_kind how,
               const char *text, int64_t now_ns);
void state_tell(struct scheduler *s, struct request *r);

/* ---- admission.c ---- */
void admission_enqueue(struct scheduler *s, struct request *r);
void admission_dequeue(struct scheduler *s, struct request *r);
/* Starts whoever fits. */
void admission_run(struct scheduler *s, int64_t now_ns);
/* Whether a running request may take n more blocks now; sends younger texts back to the queue to
 * make room. May send the request itself back: then it is no longer running and the answer is
 * false. */
bool admission_may_grow(struct scheduler *s, struct request *r, int n_blocks);
/* Back to the queue with its tokens, its blocks freed. */
void admission_send_back(struct scheduler *s, struct request *r);
/* Takes a request out of the running ones. */
void admission_leave(struct scheduler *s, struct request *r);

/* ---- microbatch.c ---- */
void microbatch_join(struct scheduler *s, struct request *r);
void microbatch_leave(struct scheduler *s, struct request *r);
/* A draw of r is planned. */
void microbatch_end_prefill(struct scheduler *s, struct request *r);
/* Chooses the number of slots anew when that is due. */
void microbatch_review(struct scheduler *s);
/* The ready slot that waits longest and was not tried in this pass, or NULL. */
struct slot *microbatch_next(struct scheduler *s, uint64_t pass);
/* Brings what the slot counts for r up to date. */
void microbatch_count(struct scheduler *s, struct request *r);
/* Moves members of a slot about to be formed to lighter ones while that evens the load. */
void microbatch_even(struct scheduler *s, struct slot *slot);
double microbatch_load(const struct scheduler *s, const struct slot *slot);

/* ---- form.c ---- */
/* The slot's next plan, or NULL when none of its members can go on now. */
struct step *form_step(struct scheduler *s, struct slot *slot, int64_t now_ns);
/* A plan that only releases. */
struct step *form_release(struct scheduler *s, int64_t now_ns);

/* ---- account.c ---- */
void account_active(struct scheduler *s, int64_t now_ns);
void account_formed(struct scheduler *s, const struct step *step, int64_t now_ns);
/* useful: share of the rows whose request is still wanted. */
void account_answered(struct scheduler *s, const struct step *step, double useful, int64_t now_ns);
/* What a plan's way takes beside steps and queues, over all stages. */
double account_way_ns(const struct scheduler *s);
double account_round_ns(const struct scheduler *s, double more_context);

#endif
