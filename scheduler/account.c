/*
 * account.c - what the stages' time went into, and what is predicted from it.
 *
 * Busy time is useful in the share of a plan's rows whose request was still wanted when the answer
 * came. The stages' times and the last stage's answer come in any order, so a plan is settled when
 * both are here.
 */
#include "base/check.h"
#include "scheduler/state.h"

/* A way is learned as a mean at first, then slowly; one that is longer than usual by a machine that
 * stopped for a while is clipped. */
enum { WAYS_OF_A_MEAN = 20 };
static const double WAY_CLIP = 4, WAY_CLIP_LEAST_NS = 1e5;
static const double FACTOR_GAIN = 0.05;
static const double POOL_SHARE = 0.85; /* of the pool is in use when requests wait for it */
static const double AREA_SHARE = 0.55; /* of its most blocks a picture holds on average */
static const double FACTOR_MOST = 4;   /* a machine that is busier than that tells nothing */

void account_active(struct scheduler *s, int64_t now_ns)
{
    bool active = s->n_queued + s->n_running > 0;
    if (active && s->active_since_ns < 0)
        s->active_since_ns = now_ns;
    if (!active && s->active_since_ns >= 0) {
        s->figures.active_ns += now_ns - s->active_since_ns;
        s->active_since_ns = -1;
    }
}

static struct history *find(struct scheduler *s, uint64_t number)
{
    struct history *h = &s->history[number % STATE_HISTORY];
    return number > 0 && h->number == number ? h : NULL;
}

void account_formed(struct scheduler *s, const struct step *step, int64_t now_ns)
{
    const struct plan *plan = &step->plan;
    s->history[plan->number % STATE_HISTORY] = (struct history){.number = plan->number,
                                                                .n_tokens = plan->n_tokens,
                                                                .n_context = plan->n_context,
                                                                .formed_ns = now_ns};
    s->figures.plans += plan->n_rows > 0;
    s->figures.rows_computed += (uint64_t)plan->n_tokens;
    for (int i = 0; i < step->n_entries; i++) {
        const struct plan_entry *entry = &step->entries[i];
        for (int k = entry->row; k < entry->row + entry->n_rows; k++) {
            /* The last token of a row that draws is decoding, whatever stands before it. */
            int decoded = entry->draws ? 1 : 0;
            s->figures.prefill_rows += (uint64_t)(step->rows[k].n_tokens - decoded);
        }
    }
}

void account_answered(struct scheduler *s, const struct step *step, double useful, int64_t now_ns)
{
    struct history *h = find(s, step->plan.number);
    if (!h)
        return;
    h->answered_ns = now_ns > h->formed_ns ? now_ns : h->formed_ns + 1;
    h->useful = useful;
    s->figures.useful_ns += (int64_t)(useful * (double)h->busy_ns);
    struct slot *slot = step->plan.slot >= 0 ? &s->slots[step->plan.slot] : NULL;
    if (!slot || step->plan.n_draws == 0)
        return;
    if (slot->answered_ns > 0 && h->formed_ns == slot->answered_ns && cost_is_measured(s->cost)) {
        double predicted =
            cost_round_ns(s->cost, s->n_slots, s->n_rows, (double)s->n_context, account_way_ns(s));
        double factor = (double)(now_ns - slot->answered_ns) / predicted;
        if (factor > FACTOR_MOST)
            factor = FACTOR_MOST;
        s->round_factor += FACTOR_GAIN * (factor - s->round_factor);
    }
    slot->answered_ns = now_ns;
}

/* A plan that found a stage idle: between the answers of the stage before (or its forming) and of
 * this one lie the step and the way. One that queued tells nothing of the way. */
static void learn_way(struct scheduler *s, const struct history *h, int stage, int64_t now_ns,
                      int64_t busy_ns)
{
    struct stage_times *times = &s->stages[stage];
    int64_t left_ns = stage == 0 ? h->formed_ns : h->measured_ns;
    if (h->n_measured != stage || times->number + 1 != h->number || times->measured_ns > left_ns)
        return;
    double way = (double)(now_ns - left_ns - busy_ns);
    double most = WAY_CLIP * times->way_ns + WAY_CLIP_LEAST_NS;
    way = way < 0 ? 0 : way < most || times->n_ways == 0 ? way : most;
    times->n_ways += times->n_ways < WAYS_OF_A_MEAN;
    times->way_ns += (way - times->way_ns) / times->n_ways;
}

void scheduler_measure(struct scheduler *s, int64_t now_ns, uint64_t number, int stage,
                       int64_t busy_ns)
{
    struct history *h = find(s, number);
    if (!h || stage < 0 || stage >= s->options.n_stages || busy_ns < 0 ||
        h->n_measured == s->options.n_stages)
        return;
    learn_way(s, h, stage, now_ns, busy_ns);
    struct stage_times *times = &s->stages[stage];
    times->busy_ns += busy_ns;
    times->number = number;
    times->measured_ns = h->measured_ns = now_ns;
    h->n_measured++;
    h->busy_ns += busy_ns;
    s->figures.busy_ns += busy_ns;
    if (h->answered_ns > 0)
        s->figures.useful_ns += (int64_t)(h->useful * (double)busy_ns);
    bool was_measured = cost_is_measured(s->cost);
    if (h->n_tokens > 0)
        cost_observe(s->cost, stage, h->n_tokens, h->n_context, busy_ns);
    /* What plans may take was the prior's guess, which may be many times too short. */
    if (!was_measured && cost_is_measured(s->cost))
        s->regroup_soon = true;
}

double account_way_ns(const struct scheduler *s)
{
    double ns = 0;
    for (int i = 0; i < s->options.n_stages; i++)
        ns += s->stages[i].way_ns;
    return ns;
}

double account_round_ns(const struct scheduler *s, double more_context)
{
    double n_rows = s->n_rows > 1 ? s->n_rows : 1;
    int n_slots = s->n_slots > 1 ? s->n_slots : 1;
    return s->round_factor * cost_round_ns(s->cost, n_slots, n_rows,
                                           (double)s->n_context + more_context, account_way_ns(s));
}

/* Rounds a request still needs, its prompt included. */
static double rounds_left(const struct request *r)
{
    enum { PROMPT_TOKENS_A_ROUND = 64 };
    return request_rounds_left(r) +
           (double)request_need(r, &r->conditional) / PROMPT_TOKENS_A_ROUND;
}

/* Blocks times rounds that a request still takes of the pool: its blocks rise evenly to their most.
 */
static double area_left(const struct request *r)
{
    double rounds = rounds_left(r), last = r->blocks_final;
    double first =
        r->state == REQUEST_RUNNING ? request_blocks_held(r) : request_blocks_after(r, 0);
    return rounds * (first + last) / 2;
}

/* Rounds until requests up to `until` (NULL = all) have left room for the next one: what the pool,
 * and running_max, let through. When that one starts, those before it are half done on average. */
static double wait_rounds(const struct scheduler *s, const struct request *until)
{
    double area = 0, rounds = 0, half_area = 0, half_rounds = 0, n = 0;
    for (int i = 0; i < s->n_running; i++) {
        const struct request *r = s->running[i];
        double left = rounds_left(r), all = left + request_n_generated(r);
        area += area_left(r);
        rounds += left;
        half_area += all * r->blocks_final * AREA_SHARE / 2;
        half_rounds += all / 2;
    }
    n = s->n_running;
    for (const struct request *r = s->queue.first; r && r != until; r = r->by_place.next) {
        area += area_left(r);
        rounds += rounds_left(r);
    }
    if (until) {
        area -= half_area;
        rounds -= half_rounds;
    }
    double by_pool = area / (s->options.kv_blocks * POOL_SHARE);
    double by_count = rounds / (n > 0 && n >= s->options.running_max ? n : s->options.running_max);
    double wait = by_pool > by_count ? by_pool : by_count;
    return wait > 0 ? wait : 0;
}

int64_t scheduler_backlog_ns(const struct scheduler *s)
{
    if (!cost_is_measured(s->cost))
        return -1;
    return (int64_t)(wait_rounds(s, NULL) * account_round_ns(s, 0));
}

/* Mean context that `other` adds to the next `rounds` rounds, beyond what it has now. It grows by
 * its rows every round; when it ends before, another like it is taken to follow from the beginning:
 * a server that is busy now stays so. */
static double mean_growth(const struct request *other, double rounds)
{
    double own = rounds_left(other), n_rows = other->load_rows;
    if (own >= rounds)
        return n_rows * rounds / 2;
    double generated = n_rows * request_n_generated(other);
    double before = n_rows * own / 2, after = n_rows * (rounds - own) / 2 - generated;
    return (before * own + after * (rounds - own)) / rounds;
}

static double own_ns(const struct scheduler *s, const struct request *r)
{
    double rounds = rounds_left(r), growth = 0;
    for (int i = 0; i < s->n_running && rounds > 0; i++)
        growth += mean_growth(s->running[i], rounds);
    if (growth < -(double)s->n_context)
        growth = -(double)s->n_context;
    return rounds * account_round_ns(s, growth);
}

enum status scheduler_progress(const struct scheduler *s, int64_t now_ns, uint64_t id,
                               struct scheduler_progress *out, struct error *err)
{
    (void)now_ns;
    *out = (struct scheduler_progress){.remaining_ns = -1};
    const struct request *r = state_find(s, id);
    if (!r)
        return error_set(err, STATUS_NOT_FOUND, "no request %llu", (unsigned long long)id);
    out->tokens_done = r->mode == SCHEDULER_PROBE ? 0 : request_n_generated(r);
    out->tokens_total = request_tokens_total(r);
    out->started_ns = r->started_ns > 0 ? r->started_ns : 0;
    out->running = r->state == REQUEST_RUNNING;
    if (r->state == REQUEST_ENDED) {
        out->remaining_ns = 0;
        return STATUS_OK;
    }
    double wait = 0;
    if (r->state == REQUEST_QUEUED) {
        out->queue_position = 1;
        for (const struct request *q = s->queue.first; q != r; q = q->by_place.next)
            out->queue_position++;
        /* It starts when the first of those before it end, not the last. */
        bool is_next_up = s->n_running == 0;
        wait = is_next_up ? 0 : wait_rounds(s, r) * account_round_ns(s, 0);
    }
    if (cost_is_measured(s->cost))
        out->remaining_ns = (int64_t)(wait + own_ns(s, r));
    return STATUS_OK;
}

void scheduler_figures(const struct scheduler *s, int64_t now_ns, struct scheduler_figures *out)
{
    *out = s->figures;
    out->n_queued = s->n_queued;
    out->n_running = s->n_running;
    out->n_in_flight = s->n_in_flight;
    out->n_slots = s->n_slots;
    out->kv_blocks_used = s->kv_used;
    out->kv_blocks_total = s->options.kv_blocks;
    if (s->active_since_ns >= 0 && now_ns > s->active_since_ns)
        out->active_ns += now_ns - s->active_since_ns;
    if (out->active_ns > 0)
        out->busy_share = (double)out->useful_ns / ((double)out->active_ns * s->options.n_stages);
    if (out->plans > 0)
        out->rows_per_read = (double)out->rows_computed / (double)out->plans;
    out->round_ns = cost_is_measured(s->cost) ? (int64_t)account_round_ns(s, 0) : 0;
}

int64_t scheduler_stage_busy_ns(const struct scheduler *s, int stage)
{
    return stage >= 0 && stage < s->options.n_stages ? s->stages[stage].busy_ns : 0;
}
