/*
 * sim.c - the event loop of the simulation; see sim.h.
 */
#include "tests/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/fake_stages.h"

enum { RING = 1024, HEAP_MAX = 1 << 16, PROMPT_MAX = 8192, STALLED_EVENTS_MAX = 100000000 };

enum event_kind { ARRIVE, DELIVER, DONE, MEASURED, ANSWER };

struct event {
    int64_t at_ns;
    uint64_t order; /* among equals the earlier made */
    enum event_kind kind;
    int stage;
    uint64_t number; /* of the plan */
};

/* A plan on its way. */
struct flight {
    uint64_t number;
    int n_tokens, n_draws;
    int64_t n_context;
    bool in_transit; /* on a link or a turn */
    int64_t busy_ns[SCHEDULER_STAGES_MAX];
};

struct stage {
    bool busy;
    uint64_t next;    /* number it executes next */
    uint64_t arrived; /* numbers up to this one are here */
};

struct life {
    int64_t arrived_ns, first_row_ns, ended_ns, half_ns, half_estimate_ns;
    int64_t queue_estimate_ns; /* told on arrival; 0 = it did not wait */
    int width;
};

struct sim {
    const struct sim_options *o;
    struct fake_vocabulary vocabulary;
    struct scheduler *scheduler;
    struct event heap[HEAP_MAX];
    int n_heap;
    uint64_t next_order, random;
    int64_t now, last, measure_from, measure_until;
    struct flight flights[RING];
    uint64_t newest;    /* number of the newest plan */
    int n_transit_back; /* answers and new plans on their turn */
    struct stage stages[SCHEDULER_STAGES_MAX];
    struct life *lives; /* [n_lives_max] by id */
    int n_lives, n_lives_max, n_live, n_ended;
    int n_queued, n_running;
    double cause_ns[5], busy_ns, running_ns, slots_ns;
    int n_slots;
    int64_t n_events;
    struct scheduler_figures start;
    bool started;
    int32_t tokens[4096];
};

void sim_options_init(struct sim_options *o)
{
    *o = (struct sim_options){.n_stages = 1,
                              .fixed_us = 50,
                              .weight_us = 2700,
                              .token_us = 16.4,
                              .context_us = 0.11,
                              .hop_us = 30,
                              .turn_us = 200,
                              .arrivals = SIM_BURST,
                              .n_requests = 32,
                              .concurrency = 32,
                              .rate = 10,
                              .warm_s = 60,
                              .seconds = 300,
                              .sizes = {{512, 512, 1}},
                              .n_sizes = 1,
                              .prompt_tokens = 60,
                              .guidance = 4,
                              .seed = 1,
                              .kv_blocks = 1 << 20,
                              .max_positions = 10240,
                              .rows_max = 1024,
                              .running_max = 1024};
    for (int i = 0; i < SCHEDULER_STAGES_MAX; i++)
        o->speeds[i] = 1;
}

/* ---- random numbers and the heap ---- */

static double uniform(struct sim *s)
{
    s->random = s->random * 6364136223846793005u + 1442695040888963407u;
    return ((double)(s->random >> 40) + 0.5) / (1 << 24);
}

static bool is_earlier(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct sim *s, double in_us, enum event_kind kind, int stage, uint64_t number)
{
    CHECK(s->n_heap < HEAP_MAX);
    struct event event = {s->now + (int64_t)llround(in_us * 1e3), s->next_order++, kind, stage,
                          number};
    int i = s->n_heap++;
    while (i > 0 && is_earlier(&event, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = event;
}

static struct event pop(struct sim *s)
{
    struct event first = s->heap[0], last = s->heap[--s->n_heap];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= s->n_heap)
            break;
        if (child + 1 < s->n_heap && is_earlier(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!is_earlier(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return first;
}

/* ---- what the time went into ---- */

enum cause { NO_WORK, FEW, MEMORY, WAY, UNEVEN };

static enum cause why_idle(const struct sim *s, const struct stage *stage)
{
    if (s->n_live == 0)
        return NO_WORK;
    if (s->n_running < s->o->n_stages)
        return s->n_queued > 0 ? MEMORY : FEW;
    if (stage->next <= s->newest)
        return s->flights[stage->next % RING].in_transit ? WAY : UNEVEN;
    /* Every plan passed already: the next one comes of an answer that is on its turn, or still
     * computed behind us. */
    return s->n_transit_back > 0 ? WAY : UNEVEN;
}

static double formula_us(const struct sim *s, int stage, double n_tokens, double n_context)
{
    const struct sim_options *o = s->o;
    if (o->measured)
        return cost_stage_ns(o->measured, stage, n_tokens, n_context) / 1e3 *
               o->measured_scales[stage];
    double read = o->weight_us + n_context * o->context_us, products = n_tokens * o->token_us;
    return (o->fixed_us + (read > products ? read : products)) / o->speeds[stage];
}

/* Shares [last, now) among the stages' states; only what lies in the measured span counts. */
static void account(struct sim *s)
{
    int64_t from = s->last > s->measure_from ? s->last : s->measure_from;
    int64_t until = s->now < s->measure_until ? s->now : s->measure_until;
    s->last = s->now;
    if (until <= from)
        return;
    double span = (double)(until - from);
    for (int i = 0; i < s->o->n_stages; i++) {
        if (s->stages[i].busy)
            s->busy_ns += span;
        else
            s->cause_ns[why_idle(s, &s->stages[i])] += span;
    }
    s->running_ns += span * s->n_running;
    s->slots_ns += span * s->n_slots;
}

/* ---- the scheduler and its events ---- */

static void arrive_together(struct sim *s, int n)
{
    for (int i = 0; i < n; i++)
        push(s, 0, ARRIVE, 0, 0);
}

/* At the start, or once the requests that warm up have ended. */
static void begin_burst(struct sim *s)
{
    s->measure_from = s->now;
    arrive_together(s, s->o->n_requests);
}

static void take_events(struct sim *s)
{
    struct scheduler_event event;
    while (scheduler_next_event(s->scheduler, &event)) {
        struct life *life = &s->lives[event.request];
        if (event.kind == SCHEDULER_STARTED) {
            s->n_queued--;
            s->n_running++;
        } else if (event.kind == SCHEDULER_TOKENS) {
            int done = event.first_ordinal + event.n_tokens;
            if (life->first_row_ns == 0 && done > life->width / 16)
                life->first_row_ns = s->now;
            struct scheduler_progress progress;
            if (life->half_ns == 0 &&
                scheduler_progress(s->scheduler, s->now, event.request, &progress, NULL) ==
                    STATUS_OK &&
                2 * done >= progress.tokens_total) {
                life->half_ns = s->now;
                life->half_estimate_ns = progress.remaining_ns;
            }
        } else {
            CHECK(event.kind == SCHEDULER_FINISHED);
            life->ended_ns = s->now;
            s->n_running--;
            s->n_live--;
            s->n_ended++;
            if (s->o->arrivals == SIM_CLOSED && s->now < s->measure_until)
                push(s, 0, ARRIVE, 0, 0);
            if (s->o->arrivals == SIM_BURST && s->n_ended == s->o->n_warm)
                begin_burst(s);
        }
    }
}

static void pump(struct sim *s)
{
    const struct plan *plan;
    while ((plan = scheduler_next_plan(s->scheduler, s->now))) {
        struct scheduler_figures figures;
        scheduler_figures(s->scheduler, s->now, &figures);
        s->n_slots = figures.n_slots;
        struct flight *flight = &s->flights[plan->number % RING];
        *flight = (struct flight){.number = plan->number,
                                  .n_tokens = plan->n_tokens,
                                  .n_draws = plan->n_draws,
                                  .n_context = plan->n_context,
                                  .in_transit = true};
        s->newest = plan->number;
        s->n_transit_back++;
        push(s, s->o->turn_us / 2, DELIVER, 0, plan->number);
    }
    take_events(s);
}

static struct sim_size choose_size(struct sim *s)
{
    double sum = 0, at;
    for (int i = 0; i < s->o->n_sizes; i++)
        sum += s->o->sizes[i].share;
    at = uniform(s) * sum;
    for (int i = 0; i + 1 < s->o->n_sizes; i++) {
        at -= s->o->sizes[i].share;
        if (at < 0)
            return s->o->sizes[i];
    }
    return s->o->sizes[s->o->n_sizes - 1];
}

static enum status arrive(struct sim *s, struct error *err)
{
    static int32_t prompt[PROMPT_MAX + 4];
    if (s->n_lives == s->n_lives_max)
        return error_set(err, STATUS_FULL, "more than %d requests", s->n_lives_max);
    struct sim_size size = choose_size(s);
    int n_template = s->o->template_tokens;
    int n_text = n_template + (int)((0.5 + uniform(s)) * s->o->prompt_tokens);
    if (n_template < 0 || n_text < n_template || n_text > PROMPT_MAX)
        return error_set(err, STATUS_INVALID,
                         "a prompt of %d tokens, %d of a template; expected 0 to %d", n_text,
                         n_template, PROMPT_MAX);
    struct scheduler_request request = {.id = (uint64_t)s->n_lives, .prompt = prompt};
    request.n_prompt = fake_alike_prompt(prompt, n_template, n_text, size.width, size.height,
                                         (uint32_t)s->n_lives);
    request.sampling = (struct plan_sampling){.temperature = 1, .guidance = (float)s->o->guidance};
    s->lives[s->n_lives++] = (struct life){.arrived_ns = s->now, .width = size.width};
    s->n_live++;
    s->n_queued++;
    enum status st = scheduler_submit(s->scheduler, s->now, &request, err);
    if (st != STATUS_OK)
        return st;
    struct scheduler_progress progress;
    CHECK(scheduler_progress(s->scheduler, s->now, request.id, &progress, NULL) == STATUS_OK);
    if (progress.queue_position > 0 && progress.remaining_ns > 0)
        s->lives[request.id].queue_estimate_ns = progress.remaining_ns;
    pump(s);
    return STATUS_OK;
}

/* ---- stages ---- */

static void start_stage(struct sim *s, int index)
{
    struct stage *stage = &s->stages[index];
    if (stage->busy || stage->next > stage->arrived)
        return;
    struct flight *flight = &s->flights[stage->next % RING];
    CHECK(flight->number == stage->next);
    double us = flight->n_tokens > 0
                    ? formula_us(s, index, flight->n_tokens, (double)flight->n_context)
                    : 1;
    us *= 1 + s->o->jitter * uniform(s);
    flight->busy_ns[index] = (int64_t)llround(us * 1e3);
    stage->busy = true;
    push(s, us, DONE, index, stage->next);
}

static void deliver(struct sim *s, const struct event *event)
{
    struct stage *stage = &s->stages[event->stage];
    CHECK(event->number == stage->arrived + 1);
    stage->arrived = event->number;
    s->flights[event->number % RING].in_transit = false;
    if (event->stage == 0)
        s->n_transit_back--;
    start_stage(s, event->stage);
}

static void done(struct sim *s, const struct event *event)
{
    struct stage *stage = &s->stages[event->stage];
    stage->busy = false;
    stage->next++;
    s->flights[event->number % RING].in_transit = true;
    push(s, s->o->turn_us / 2, MEASURED, event->stage, event->number);
    if (event->stage + 1 < s->o->n_stages) {
        push(s, s->o->hop_us, DELIVER, event->stage + 1, event->number);
    } else {
        s->n_transit_back++;
        push(s, s->o->turn_us / 2, ANSWER, 0, event->number);
    }
    start_stage(s, event->stage);
}

static void measured(struct sim *s, const struct event *event)
{
    const struct flight *flight = &s->flights[event->number % RING];
    scheduler_measure(s->scheduler, s->now, event->number, event->stage,
                      flight->busy_ns[event->stage]);
}

static enum status answer(struct sim *s, const struct event *event, struct error *err)
{
    struct flight *flight = &s->flights[event->number % RING];
    s->n_transit_back--;
    struct plan_result result = {
        .number = flight->number, .n_tokens = flight->n_draws, .tokens = s->tokens};
    enum status st = scheduler_complete(s->scheduler, s->now, &result, err);
    take_events(s);
    if (st == STATUS_OK)
        pump(s);
    return st;
}

static enum status handle(struct sim *s, const struct event *event, struct error *err)
{
    switch (event->kind) {
    case ARRIVE:
        return arrive(s, err);
    case DELIVER:
        deliver(s, event);
        return STATUS_OK;
    case DONE:
        done(s, event);
        return STATUS_OK;
    case MEASURED:
        measured(s, event);
        return STATUS_OK;
    case ANSWER:
        return answer(s, event, err);
    }
    return STATUS_INTERNAL;
}

/* ---- a run ---- */

static void plan_burst(struct sim *s)
{
    s->measure_from = s->measure_until = INT64_MAX;
    arrive_together(s, s->o->n_warm);
    if (s->o->n_warm == 0)
        begin_burst(s);
}

static void plan_arrivals(struct sim *s)
{
    double at = 0;
    int n = s->o->arrivals == SIM_CLOSED ? s->o->concurrency : s->o->n_requests;
    if (s->o->arrivals == SIM_BURST) {
        plan_burst(s);
        return;
    }
    for (int i = 0; i < n; i++) {
        if (s->o->arrivals == SIM_POISSON)
            at += -log(uniform(s)) * 60e6 / s->o->rate;
        else
            at = s->o->warm_s * 0.5e6 * i / n; /* ages are spread, as in a long run */
        push(s, at, ARRIVE, 0, 0);
    }
    s->measure_from = s->o->arrivals == SIM_CLOSED ? (int64_t)(s->o->warm_s * 1e9) : 0;
    s->measure_until =
        s->o->arrivals == SIM_CLOSED ? s->measure_from + (int64_t)(s->o->seconds * 1e9) : INT64_MAX;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void percentiles(double *values, int n, double out[3])
{
    static const double at[3] = {0.5, 0.95, 0.99};
    qsort(values, (size_t)n, sizeof(*values), compare_doubles);
    for (int i = 0; i < 3; i++)
        out[i] = n > 0 ? values[(int)fmin(n - 1, floor(at[i] * n))] : 0;
}

static void summarize_lives(const struct sim *s, struct sim_result *r, double *values)
{
    int n = 0, n_half = 0, n_queued = 0;
    double half_error = 0, queue_error = 0;
    for (int i = 0; i < s->n_lives; i++) {
        const struct life *life = &s->lives[i];
        if (life->ended_ns <= s->measure_from || life->ended_ns > s->measure_until)
            continue;
        double whole = (double)(life->ended_ns - life->arrived_ns);
        values[n++] = whole / 1e9;
        if (life->half_estimate_ns >= 0 && life->ended_ns > life->half_ns) {
            double left = (double)(life->ended_ns - life->half_ns);
            half_error += fabs((double)life->half_estimate_ns - left) / left;
            n_half++;
        }
        if (life->queue_estimate_ns > 0) {
            queue_error += fabs((double)life->queue_estimate_ns - whole) / whole;
            n_queued++;
        }
    }
    r->half_estimate_error = n_half > 0 ? half_error / n_half : 0;
    r->queue_estimate_error = n_queued > 0 ? queue_error / n_queued : 0;
    r->n_finished = n;
    percentiles(values, n, r->latency_s);
    n = 0;
    for (int i = 0; i < s->n_lives; i++) {
        if (s->lives[i].first_row_ns > s->measure_from &&
            s->lives[i].first_row_ns <= s->measure_until)
            values[n++] = (double)(s->lives[i].first_row_ns - s->lives[i].arrived_ns) / 1e9;
    }
    percentiles(values, n, r->first_row_s);
}

static void summarize(struct sim *s, struct sim_result *r)
{
    struct scheduler_figures end;
    scheduler_figures(s->scheduler, s->now, &end);
    int64_t until = s->now < s->measure_until ? s->now : s->measure_until;
    double wall = (double)(until - s->measure_from), all = wall * s->o->n_stages;
    memset(r, 0, sizeof(*r));
    r->wall_s = wall / 1e9;
    r->busy_share = s->busy_ns / all;
    r->losses = (struct sim_losses){.no_work = s->cause_ns[NO_WORK] / all,
                                    .few = s->cause_ns[FEW] / all,
                                    .memory = s->cause_ns[MEMORY] / all,
                                    .way = s->cause_ns[WAY] / all,
                                    .uneven = s->cause_ns[UNEVEN] / all};
    double filled = 1 - r->losses.no_work - r->losses.few - r->losses.memory;
    r->filled_share = filled > 0 ? r->busy_share / filled : 0;
    r->n_plans = (int64_t)(end.plans - s->start.plans);
    r->rows_per_read =
        r->n_plans > 0 ? (double)(end.rows_computed - s->start.rows_computed) / (double)r->n_plans
                       : 0;
    r->tokens_per_s = (double)(end.tokens_committed - s->start.tokens_committed) / r->wall_s;
    r->preempted = (int64_t)end.preempted;
    r->mean_running = s->running_ns / wall;
    r->mean_slots = s->slots_ns / wall;
    r->n_events = s->n_events;
    double *values = malloc((size_t)(s->n_lives + 1) * sizeof(*values));
    CHECK(values != NULL);
    summarize_lives(s, r, values);
    free(values);
    r->images_per_min = r->n_finished * 60 / r->wall_s;
}

static enum status loop(struct sim *s, struct error *err)
{
    plan_arrivals(s);
    while (s->n_heap > 0) {
        struct event event = pop(s);
        s->now = event.at_ns;
        account(s);
        if (!s->started && s->now >= s->measure_from) {
            scheduler_figures(s->scheduler, s->now, &s->start);
            s->started = true;
        }
        if (s->now >= s->measure_until)
            return STATUS_OK;
        enum status st = handle(s, &event, err);
        if (st != STATUS_OK)
            return st;
        if (++s->n_events > STALLED_EVENTS_MAX)
            return error_set(err, STATUS_TIMEOUT, "more than %d events", STALLED_EVENTS_MAX);
    }
    if (s->n_live > 0)
        return error_set(err, STATUS_INTERNAL, "%d requests live and nothing is to do", s->n_live);
    return STATUS_OK;
}

static enum status check(const struct sim_options *o, struct error *err)
{
    if (o->n_stages < 1 || o->n_stages > SCHEDULER_STAGES_MAX)
        return error_set(err, STATUS_INVALID, "%d stages, expected 1 to %d", o->n_stages,
                         SCHEDULER_STAGES_MAX);
    if (o->n_requests < 1 || o->n_requests > HEAP_MAX / 2 || o->concurrency < 1 ||
        o->concurrency > HEAP_MAX / 2)
        return error_set(err, STATUS_INVALID, "%d requests, %d at once, expected 1 to %d",
                         o->n_requests, o->concurrency, HEAP_MAX / 2);
    if (o->n_warm < 0 || o->n_warm > HEAP_MAX / 2)
        return error_set(err, STATUS_INVALID, "%d requests to warm up, expected 0 to %d", o->n_warm,
                         HEAP_MAX / 2);
    if (!(o->rate > 0) || !(o->seconds > 0) || !(o->warm_s >= 0))
        return error_set(err, STATUS_INVALID, "rate and seconds must be above 0");
    for (int i = 0; i < o->n_stages; i++) {
        if (!(o->speeds[i] > 0))
            return error_set(err, STATUS_INVALID, "speed %g of stage %d, expected above 0",
                             o->speeds[i], i);
    }
    return STATUS_OK;
}

enum status sim_run(const struct sim_options *o, struct sim_result *result, struct error *err)
{
    enum status st = check(o, err);
    if (st != STATUS_OK)
        return st;
    struct sim *s = calloc(1, sizeof(*s));
    CHECK(s != NULL);
    s->o = o;
    s->random = o->seed;
    s->n_lives_max = SIM_REQUESTS_MAX;
    s->lives = calloc((size_t)s->n_lives_max, sizeof(*s->lives));
    CHECK(s->lives != NULL);
    fake_vocabulary_init(&s->vocabulary);
    for (int i = 0; i < 4096; i++)
        s->tokens[i] = FAKE_CODE_BASE + i % FAKE_CODES;
    for (int i = 0; i < o->n_stages; i++)
        s->stages[i].next = 1;
    struct scheduler_options options;
    scheduler_options_init(&options);
    options.vocabulary = &s->vocabulary.vocabulary;
    options.n_stages = o->n_stages;
    options.kv_blocks = o->kv_blocks;
    options.max_positions = o->max_positions;
    options.micro_batches = o->micro_batches;
    options.prefill_chunk = o->prefill_chunk;
    options.rows_max = o->rows_max;
    options.running_max = o->running_max;
    options.queue_max = HEAP_MAX;
    st = scheduler_create(&s->scheduler, &options, err);
    if (st == STATUS_OK)
        st = loop(s, err);
    if (st == STATUS_OK)
        summarize(s, result);
    scheduler_destroy(s->scheduler);
    free(s->lives);
    free(s);
    return st;
}
