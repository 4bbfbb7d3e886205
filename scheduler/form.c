/*
 * form.c - one slot's next plan: rows of decoding first, then as much prefill as does not delay
 * them beyond the bound.
 *
 * Rows of one request: all its known tokens that are not fed yet. Usually that is the drawn token;
 * at the end of a picture's row the forced new line goes with it, so forced tokens cost no step. A
 * row whose request has nothing left to feed wants a draw; a prompt that does not fit the budget is
 * fed in parts without one.
 */
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/state.h"

enum {
    PREFILL_ALONE_LEAST = 32, /* prompt tokens of a plan when nobody waits for draws */
    PREFILL_ALONE_MOST = 256,
    PREFILL_LEAST = 8, /* and at least so many when others do: a prompt must come to its end */
    PREFILL_MOST = 2048,
    COPY_LEAST = 8, /* positions in a copy of a block: fewer are computed as soon */
    WAIT_LEAST = 16 /* positions that come by waiting for another's prompt */
};

static bool is_decode(const struct request *r)
{
    int fresh = r->n_fresh > 1 ? r->n_fresh : 1;
    return r->mode != SCHEDULER_PROBE && request_need(r, &r->conditional) <= fresh &&
           (!r->has_unconditional || request_need(r, &r->unconditional) <= fresh);
}

static int tokens_left(const struct scheduler *s, const struct step *step)
{
    return s->rows_max - step->plan.n_tokens;
}

static int new_blocks(const struct sequence *sequence, int n_tokens)
{
    return n_tokens > 0 ? request_blocks(sequence->n_fed + n_tokens) - sequence->n_blocks : 0;
}

/* One row; the pool was asked before. */
static struct plan_row *add_row(struct scheduler *s, struct step *step, struct request *r,
                                struct sequence *sequence, int n_tokens, enum plan_role role)
{
    struct plan *plan = &step->plan;
    CHECK(plan->n_rows < s->rows_max);
    CHECK(n_tokens <= tokens_left(s, step));
    if (sequence->id == 0)
        sequence->id = s->next_sequence++;
    struct plan_row *row = &step->rows[plan->n_rows++];
    int32_t *tokens = step->tokens + plan->n_tokens;
    memcpy(tokens, r->tokens + sequence->base + sequence->n_fed,
           (size_t)n_tokens * sizeof(tokens[0]));
    *row = (struct plan_row){.request = r->id,
                             .sequence = sequence->id,
                             .start = sequence->n_fed,
                             .n_tokens = n_tokens,
                             .tokens = tokens,
                             .role = role,
                             .sampling = plan->n_samplings - 1,
                             .outputs = step->outputs + step->n_outputs};
    int blocks = new_blocks(sequence, n_tokens);
    sequence->n_fed += n_tokens;
    sequence->n_blocks += blocks;
    s->kv_used += blocks;
    plan->n_tokens += n_tokens;
    plan->n_context += sequence->n_fed;
    return row;
}

/* The output behind a row's last token. The unconditional twin says the same as its conditional
 * row. */
static void add_draw(struct step *step, struct plan_row *row, const struct request *r)
{
    struct plan_output *output = &step->outputs[step->n_outputs++];
    output->offset = row->n_tokens - 1;
    request_describe_draw(r, output, step->listed + step->n_listed);
    step->n_listed += output->n_listed;
    row->n_outputs = 1;
}

static void add_logits(struct step *step, struct plan_row *row, const struct request *r)
{
    for (int i = 0; i < r->n_positions; i++) {
        int offset = r->positions[i] - row->start;
        if (offset < 0 || offset >= row->n_tokens)
            continue;
        step->outputs[step->n_outputs++] =
            (struct plan_output){.offset = offset, .ordinal = i, .kind = PLAN_LOGITS};
        row->n_outputs++;
    }
    step->n_logits += row->n_outputs;
}

/* Shortens a row of a probe until its logits fit the plan. */
static int limit_logits(const struct step *step, const struct request *r, int n_tokens)
{
    int left = STATE_LOGITS_MAX - step->n_logits;
    int start = r->conditional.n_fed;
    for (int i = 0; i < r->n_positions; i++) {
        int offset = r->positions[i] - start;
        if (offset >= 0 && offset < n_tokens && left-- == 0)
            return offset;
    }
    return n_tokens;
}

static bool has_room(const struct scheduler *s, const struct step *step, const struct request *r)
{
    int listed = r->grammar.next == UNIREP_HEIGHT || r->grammar.next == UNIREP_WIDTH
                     ? s->limits.vocabulary->n_sizes
                     : 1;
    return step->n_listed + listed <= s->listed_max;
}

/* A prompt begins, with so many positions taken over from another request. */
static void count_prompt(struct scheduler *s, const struct request *r, int n_shared)
{
    s->figures.prefix_queries += (uint64_t)r->n_prompt;
    s->figures.prefix_hits += (uint64_t)n_shared;
}

/* Rows of n and m tokens of the two sequences, drawing or not. Everything was checked. */
static void add_rows(struct scheduler *s, struct step *step, struct request *r, int n, int m,
                     bool draws)
{
    struct plan *plan = &step->plan;
    struct plan_entry *entry = &step->entries[step->n_entries++];
    *entry = (struct plan_entry){.request = r, .row = plan->n_rows, .draws = draws};
    step->samplings[plan->n_samplings++] = r->sampling;
    bool pair = draws && r->has_unconditional;
    if (r->conditional.id == 0)
        count_prompt(s, r, 0);
    if (n > 0) {
        struct plan_row *row =
            add_row(s, step, r, &r->conditional, n, pair ? PLAN_CONDITIONAL : PLAN_PLAIN);
        entry->n_held[0] = r->conditional.n_fed;
        if (draws)
            add_draw(step, row, r);
        else if (r->mode == SCHEDULER_PROBE)
            add_logits(step, row, r);
    }
    if (m > 0) {
        struct plan_row *row =
            add_row(s, step, r, &r->unconditional, m, pair ? PLAN_UNCONDITIONAL : PLAN_PLAIN);
        entry->n_held[1] = r->unconditional.n_fed;
        if (pair)
            add_draw(step, row, r);
    }
    entry->n_rows = plan->n_rows - entry->row;
    plan->n_draws += draws;
    r->planned = plan->number;
    r->n_in_flight++;
    r->awaits_draw = draws;
    if (draws) {
        r->n_fresh = 0;
        microbatch_end_prefill(s, r);
    }
}

/* Adds the request's rows with at most `budget` tokens of prefill. Returns the tokens added. */
static int add_request(struct scheduler *s, struct step *step, struct request *r, int budget)
{
    int n = request_need(r, &r->conditional);
    int m = r->has_unconditional ? request_need(r, &r->unconditional) : 0;
    bool draws = r->mode != SCHEDULER_PROBE && (is_decode(r) || n + m <= budget);
    if (!draws) {
        int all_n = n, all_m = m;
        n = n < budget ? n : budget;
        m = m < budget - n ? m : budget - n;
        /* The draw wants the last token of both sequences in one plan: whoever is first keeps its
         * own back. */
        if (r->mode != SCHEDULER_PROBE && n == all_n) {
            n--;
            m = all_m < budget - n ? all_m : budget - n;
        }
        if (m == all_m && m > 0)
            m--;
        if (r->mode == SCHEDULER_PROBE)
            n = limit_logits(step, r, n);
    }
    int rows = (n > 0) + (m > 0);
    if (n + m == 0 || n + m > tokens_left(s, step) || step->plan.n_rows + rows > s->rows_max ||
        !has_room(s, step, r))
        return 0;
    if (!admission_may_grow(s, r,
                            new_blocks(&r->conditional, n) + new_blocks(&r->unconditional, m)))
        return 0;
    add_rows(s, step, r, n, m, draws);
    return n + m;
}

/* ---- shared prefixes ---- */

static int common_prefix(const struct request *a, const struct request *b)
{
    int most = a->n_prompt < b->n_prompt ? a->n_prompt : b->n_prompt, n = 0;
    while (n < most && a->tokens[n] == b->tokens[n])
        n++;
    return n;
}

/* Whether the elder's rows keep coming. One that is held up must not hold others up: it may be
 * waiting for them. */
static bool is_moving(const struct scheduler *s, const struct request *elder)
{
    bool goes_with_this_plan = elder->planned == s->next_number;
    return goes_with_this_plan ||
           (s->n_in_flight > 0 &&
            elder->planned + 2 * (uint64_t)(s->n_slots + 1) >= s->next_number);
}

/* Running requests whose prompts begin as another's does. */
struct elders {
    struct request *holder; /* holds the longest common prefix, NULL: nobody holds any */
    int n_held;             /* positions of it */
    int n_coming;           /* of the longest that is in the stages or on its way */
};

static struct elders find_elders(const struct scheduler *s, const struct request *r)
{
    struct elders elders = {.holder = NULL};
    const int most = r->n_tokens - 1; /* the last token is always fed: its output is wanted */
    for (int i = 0; i < s->n_running && elders.n_held < most; i++) {
        struct request *other = s->running[i];
        if (other == r || other->conditional.id == 0)
            continue;
        int n = common_prefix(other, r);
        n = n < most ? n : most;
        int held = n < other->conditional.n_held ? n : other->conditional.n_held;
        if (held > elders.n_held) {
            elders.n_held = held;
            elders.holder = other;
        }
        if (n > elders.n_coming && (held == n || is_moving(s, other)))
            elders.n_coming = n;
    }
    return elders;
}

/* A request that starts takes over the beginning of its prompt from one that is in the stages
 * already: full blocks are shared, of the last one it gets a copy. While more of it is on its way
 * it waits: computing the same twice would take longer. Returns false for that. */
static bool share_prefix(struct scheduler *s, struct step *step, struct request *r)
{
    if (r->conditional.id != 0 || r->mode == SCHEDULER_PROBE)
        return true;
    struct elders elders = find_elders(s, r);
    if (elders.n_coming - elders.n_held >= WAIT_LEAST)
        return false;
    int n = elders.n_held;
    if (n % PLAN_BLOCK_TOKENS < COPY_LEAST)
        n -= n % PLAN_BLOCK_TOKENS;
    if (n == 0 || step->plan.n_forks == s->options.running_max ||
        !admission_may_grow(s, r, request_blocks(n)))
        return true;
    r->conditional.id = s->next_sequence++;
    r->conditional.n_fed = r->conditional.n_held = n;
    r->conditional.n_blocks = request_blocks(n);
    s->kv_used += request_blocks(n);
    count_prompt(s, r, n);
    /* Neither is sent back by this plan: releases come before forks. */
    r->planned = elders.holder->forked = step->plan.number;
    step->forks[step->plan.n_forks++] = (struct plan_fork){
        .from = elders.holder->conditional.id, .to = r->conditional.id, .n_positions = n};
    return true;
}

/* ---- prefill ---- */

static bool anyone_decodes(const struct scheduler *s)
{
    for (int i = 0; i < s->n_running; i++) {
        if (s->running[i]->awaits_draw || s->running[i]->n_fresh > 0)
            return true;
    }
    return false;
}

/* With nobody to delay: the part of the prompts that brings them soonest through all stages. Small
 * ones read the weights more often, large ones leave the stages behind idle at first. */
static int prefill_alone(const struct scheduler *s)
{
    double left = 0, best_ns = INFINITY;
    int best = PREFILL_ALONE_MOST;
    for (int i = 0; i < s->n_running; i++)
        left += request_need(s->running[i], &s->running[i]->conditional);
    for (int n = PREFILL_ALONE_MOST; n >= PREFILL_ALONE_LEAST; n /= 2) {
        double n_steps = ceil(left / n) + s->options.n_stages - 1;
        double ns = n_steps * cost_step_ns(s->cost, n, n, NULL);
        if (ns < best_ns) {
            best_ns = ns;
            best = n;
        }
    }
    return best;
}

static int prefill_budget(const struct scheduler *s, const struct step *step)
{
    if (s->options.prefill_chunk > 0)
        return s->options.prefill_chunk;
    if (!anyone_decodes(s))
        return prefill_alone(s);
    int budget = PREFILL_LEAST, more = PREFILL_LEAST;
    double n_rows = step->plan.n_tokens, n_context = (double)step->plan.n_context;
    while (budget + more <= PREFILL_MOST &&
           cost_step_ns(s->cost, n_rows + budget + more, n_context + budget + more, NULL) <=
               s->allowed_ns) {
        budget += more;
        more = budget / 2;
    }
    return budget;
}

static bool is_prefill(const struct request *r)
{
    return !is_decode(r) || r->conditional.id == 0;
}

/* The slot's ready members, and behind them those of other slots that wait for prefill: beside
 * decoding it goes with any plan. If only some carried it, the stages would wait for the longer
 * ones. */
static int gather(struct scheduler *s, const struct slot *slot)
{
    int n = 0;
    for (struct request *r = slot->members.first; r; r = r->by_place.next) {
        if (request_is_ready(r))
            s->members[n++] = r;
    }
    bool with_others = s->n_prefill > 0 && anyone_decodes(s);
    for (int i = 0; with_others && i < s->n_running; i++) {
        struct request *r = s->running[i];
        if (r->in_prefill && &s->slots[r->slot] != slot && request_is_ready(r))
            s->members[n++] = r;
    }
    return n;
}

/* While the list was walked, a member may have been sent back to the queue. */
static bool still_goes(const struct scheduler *s, const struct request *r)
{
    return r->state == REQUEST_RUNNING && r->planned != s->next_number && request_is_ready(r);
}

/* Members that found no place go first next time. */
static void rotate(struct scheduler *s, const struct step *step)
{
    for (int i = 0; i < step->n_entries; i++) {
        struct list *members = &s->slots[step->entries[i].request->slot].members;
        state_list_remove(members, step->entries[i].request);
        state_list_append(members, step->entries[i].request);
    }
}

static void add_members(struct scheduler *s, struct step *step, struct slot *slot)
{
    int n = gather(s, slot), n_left_out = 0;
    for (int i = 0; i < n; i++) {
        if (still_goes(s, s->members[i]) && !is_prefill(s->members[i]))
            n_left_out += add_request(s, step, s->members[i], 0) == 0;
    }
    int budget = -1;
    for (int i = 0; i < n && budget != 0; i++) {
        struct request *r = s->members[i];
        if (!still_goes(s, r) || !is_prefill(r))
            continue;
        if (budget < 0)
            budget = prefill_budget(s, step);
        if (!share_prefix(s, step, r))
            continue;
        int most = r->chunk > 0 && r->chunk < budget ? r->chunk : budget;
        most = most < tokens_left(s, step) ? most : tokens_left(s, step);
        int added = most > 0 ? add_request(s, step, r, most) : 0;
        n_left_out += added == 0;
        budget -= added < budget ? added : budget;
    }
    if (n_left_out > 0)
        rotate(s, step);
}

static struct step *start_step(struct scheduler *s)
{
    for (int i = 0; i < s->n_steps; i++) {
        struct step *step = &s->steps[i];
        if (step->in_flight)
            continue;
        step->n_entries = step->n_listed = step->n_outputs = step->n_logits = 0;
        step->plan = (struct plan){.epoch = s->epoch,
                                   .number = s->next_number,
                                   .slot = -1,
                                   .release = step->release,
                                   .forks = step->forks,
                                   .rows = step->rows,
                                   .samplings = step->samplings};
        return step;
    }
    return NULL;
}

static struct step *finish_step(struct scheduler *s, struct step *step, int64_t now_ns)
{
    step->plan.n_release = s->n_release;
    memcpy(step->release, s->release, (size_t)s->n_release * sizeof(s->release[0]));
    s->n_release = 0;
    account_formed(s, step, now_ns);
    step->in_flight = true;
    s->n_in_flight++;
    s->next_number++;
    return step;
}

struct step *form_step(struct scheduler *s, struct slot *slot, int64_t now_ns)
{
    struct step *step = start_step(s);
    if (!step)
        return NULL;
    microbatch_even(s, slot);
    add_members(s, step, slot);
    if (step->plan.n_rows + step->plan.n_forks == 0)
        return NULL;
    step->plan.slot = (int)(slot - s->slots);
    slot->n_in_flight++;
    slot->n_waiting += step->plan.n_draws > 0;
    s->rounds += step->plan.n_draws > 0 ? 1.0 / s->n_slots : 0;
    slot->ready_order = s->next_ready++;
    return finish_step(s, step, now_ns);
}

struct step *form_release(struct scheduler *s, int64_t now_ns)
{
    struct step *step = start_step(s);
    return step ? finish_step(s, step, now_ns) : NULL;
}
