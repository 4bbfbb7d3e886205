/*
 * fake_world.h - for tests: a scheduler with fake stages, plans in flight whose answers are told in
 * any order, and a book of what every request was told.
 */
#ifndef MGPT_SCHEDULER_FAKE_WORLD_H
#define MGPT_SCHEDULER_FAKE_WORLD_H

#include "scheduler/fake_stages.h"

enum { WORLD_FLIGHTS_MAX = 160, WORLD_REQUESTS_MAX = 4096, WORLD_TOKENS_MAX = 5000 };

struct world_flight {
    uint64_t number;
    int stages_told, n_answers, n_tokens;
    int64_t n_context, formed_ns;
    int32_t *answers;
};

struct world_request {
    bool submitted, started, ended;
    enum scheduler_event_kind ending;
    enum scheduler_finish finish;
    int n_tokens;
    int32_t *tokens; /* generated */
    char text[ERROR_TEXT_BYTES];
};

struct world {
    struct fake_vocabulary vocabulary;
    struct fake_stages stages;
    struct scheduler *scheduler;
    struct scheduler_options options;
    struct world_flight flights[WORLD_FLIGHTS_MAX];
    int n_flights;
    int64_t now;
    struct world_request requests[WORLD_REQUESTS_MAX]; /* by id */
    const struct plan *plan;                           /* newest */
    uint64_t plans_hash;                               /* of all plans so far */
    int n_plans, n_draw_plans, n_ended;
};

static inline void world_init(struct world *w, const struct scheduler_options *options)
{
    memset(w, 0, sizeof(*w));
    fake_vocabulary_init(&w->vocabulary);
    w->options = *options;
    w->options.vocabulary = &w->vocabulary.vocabulary;
    struct error err;
    enum status st = scheduler_create(&w->scheduler, &w->options, &err);
    CHECK(st == STATUS_OK);
    fake_stages_init(&w->stages, options->kv_blocks, options->max_positions, options->rows_max);
    w->now = 1;
}

static inline struct scheduler_options world_options(int n_stages, int kv_blocks)
{
    struct scheduler_options options;
    scheduler_options_init(&options);
    options.n_stages = n_stages;
    options.kv_blocks = kv_blocks;
    options.max_positions = 4096;
    return options;
}

static inline void world_fini(struct world *w)
{
    scheduler_destroy(w->scheduler);
    fake_stages_fini(&w->stages);
    for (int i = 0; i < w->n_flights; i++)
        free(w->flights[i].answers);
    for (int i = 0; i < WORLD_REQUESTS_MAX; i++)
        free(w->requests[i].tokens);
}

/* Takes all events; everything they promise is checked. */
static inline void world_events(struct world *w)
{
    struct scheduler_event event;
    while (scheduler_next_event(w->scheduler, &event)) {
        CHECK(event.request < WORLD_REQUESTS_MAX);
        struct world_request *r = &w->requests[event.request];
        CHECK(r->submitted);
        CHECK(!r->ended);
        if (event.kind == SCHEDULER_STARTED) {
            CHECK(!r->started);
            r->started = true;
            continue;
        }
        if (event.kind == SCHEDULER_TOKENS) {
            CHECK(event.first_ordinal == r->n_tokens);
            CHECK(event.n_tokens > 0);
            if (!r->tokens)
                r->tokens = calloc(WORLD_TOKENS_MAX, sizeof(*r->tokens));
            CHECK(r->n_tokens + event.n_tokens <= WORLD_TOKENS_MAX);
            memcpy(r->tokens + r->n_tokens, event.tokens,
                   (size_t)event.n_tokens * sizeof(*r->tokens));
            r->n_tokens += event.n_tokens;
            continue;
        }
        r->ended = true;
        r->ending = event.kind;
        w->n_ended++;
        if (event.kind == SCHEDULER_FINISHED) {
            r->finish = event.finish;
            CHECK(event.n_tokens == r->n_tokens);
            CHECK(r->n_tokens == 0 ||
                  memcmp(event.tokens, r->tokens, (size_t)r->n_tokens * sizeof(*r->tokens)) == 0);
        }
        if (event.kind == SCHEDULER_FAILED) {
            CHECK(event.text != NULL);
            strncpy(r->text, event.text, sizeof(r->text) - 1);
        }
    }
}

static inline enum status world_submit(struct world *w, const struct scheduler_request *request,
                                       struct error *err)
{
    enum status st = scheduler_submit(w->scheduler, w->now, request, err);
    if (st == STATUS_OK) {
        CHECK(request->id < WORLD_REQUESTS_MAX);
        w->requests[request->id].submitted = true;
    }
    return st;
}

/* A picture with a prompt of n_text ids. */
static inline enum status world_submit_picture(struct world *w, uint64_t id, int n_text, int width,
                                               int height, float guidance, struct error *err)
{
    int32_t *prompt = calloc((size_t)n_text + 4, sizeof(*prompt));
    struct scheduler_request request = {.id = id, .mode = SCHEDULER_PICTURE, .prompt = prompt};
    request.n_prompt = fake_picture_prompt(prompt, n_text, width, height, (uint32_t)id);
    request.sampling = (struct plan_sampling){.seed = id, .temperature = 1, .guidance = guidance};
    enum status st = world_submit(w, &request, err);
    free(prompt);
    return st;
}

static inline enum status world_submit_text(struct world *w, uint64_t id, int n_text,
                                            int max_tokens, float guidance, struct error *err)
{
    int32_t *prompt = calloc((size_t)n_text + 4, sizeof(*prompt));
    int n = fake_picture_prompt(prompt, n_text, 32, 32, (uint32_t)id) - 3;
    struct scheduler_request request = {.id = id,
                                        .mode = SCHEDULER_FREE,
                                        .prompt = prompt,
                                        .n_prompt = n,
                                        .max_tokens = max_tokens};
    request.sampling = (struct plan_sampling){.seed = id, .temperature = 1, .guidance = guidance};
    enum status st = world_submit(w, &request, err);
    free(prompt);
    return st;
}

static inline uint64_t world_hash_plan(uint64_t hash, const struct plan *plan)
{
    hash = fake_mix(hash, plan->number + 31 * plan->epoch);
    hash = fake_mix(hash, (uint64_t)plan->slot + 7);
    for (int i = 0; i < plan->n_release; i++)
        hash = fake_mix(hash, plan->release[i]);
    for (int i = 0; i < plan->n_rows; i++) {
        hash = fake_mix(hash, plan->rows[i].sequence * 3 + (uint64_t)plan->rows[i].role);
        hash = fake_mix(hash, (uint64_t)plan->rows[i].start);
        for (int k = 0; k < plan->rows[i].n_tokens; k++)
            hash = fake_mix(hash, (uint64_t)plan->rows[i].tokens[k]);
    }
    return hash;
}

/* Forms and executes one plan. False when there is none. */
static inline bool world_form(struct world *w)
{
    const struct plan *plan = scheduler_next_plan(w->scheduler, w->now);
    if (!plan)
        return false;
    fake_execute(&w->stages, plan);
    CHECK(w->n_flights < WORLD_FLIGHTS_MAX);
    struct world_flight *flight = &w->flights[w->n_flights++];
    *flight = (struct world_flight){.number = plan->number,
                                    .n_answers = w->stages.n_answers,
                                    .n_tokens = plan->n_tokens,
                                    .n_context = plan->n_context,
                                    .formed_ns = w->now};
    flight->answers = calloc((size_t)w->stages.n_answers + 1, sizeof(int32_t));
    memcpy(flight->answers, w->stages.answers, (size_t)w->stages.n_answers * sizeof(int32_t));
    w->plan = plan;
    w->plans_hash = world_hash_plan(w->plans_hash, plan);
    w->n_plans++;
    w->n_draw_plans += plan->n_draws > 0;
    struct scheduler_figures figures;
    scheduler_figures(w->scheduler, w->now, &figures);
    CHECK(figures.kv_blocks_used <= figures.kv_blocks_total);
    /* Blocks of shared prefixes are accounted for each reader, so the stages hold at most what is
     * accounted. */
    if (plan->n_release + plan->n_rows > 0)
        CHECK(w->stages.blocks_used <= figures.kv_blocks_used);
    return true;
}

/* Tells the answer of flight `index`, with a time of busy_ns a stage. */
static inline enum status world_answer(struct world *w, int index, int64_t busy_ns,
                                       struct error *err)
{
    CHECK(index < w->n_flights);
    struct world_flight flight = w->flights[index];
    for (int i = index; i + 1 < w->n_flights; i++)
        w->flights[i] = w->flights[i + 1];
    w->n_flights--;
    for (int stage = 0; busy_ns > 0 && stage < w->options.n_stages; stage++)
        scheduler_measure(w->scheduler, w->now, flight.number, stage, busy_ns);
    struct plan_result result = {
        .number = flight.number, .n_tokens = flight.n_answers, .tokens = flight.answers};
    enum status st = scheduler_complete(w->scheduler, w->now, &result, err);
    free(flight.answers);
    world_events(w);
    return st;
}

/* Runs until nothing is to do; answers come in the order of the plans. Returns the number of plans.
 */
static inline int world_run(struct world *w, int plans_max)
{
    int n = 0;
    for (;;) {
        while (world_form(w))
            CHECK(++n <= plans_max);
        world_events(w);
        if (w->n_flights == 0)
            return n;
        w->now += 1000000;
        CHECK(world_answer(w, 0, 900000, NULL) == STATUS_OK);
    }
}

/* ---- what tests ask, of the one world of their file ---- */

static struct world world __attribute__((unused));

__attribute__((unused)) static const struct world_request *told(uint64_t id)
{
    return &world.requests[id];
}

__attribute__((unused)) static int blocks_in_use(void)
{
    struct scheduler_figures figures;
    scheduler_figures(world.scheduler, world.now, &figures);
    return figures.kv_blocks_used;
}

/* Generated tokens of a picture: rows with their new lines, and the end. */
__attribute__((unused)) static int picture_tokens(int width, int height)
{
    return height / 16 * (width / 16 + 1) + 1;
}

/* Nothing is accounted for, nothing is held. */
__attribute__((unused)) static void check_empty(void)
{
    CHECK(blocks_in_use() == 0);
    CHECK(world.stages.blocks_used == 0);
    CHECK(world.stages.n_sequences == 0);
}

/* The tokens a picture has when it is alone on one stage. */
__attribute__((unused)) static void alone(uint64_t id, int n_text, int width, int height,
                                          float guidance, int32_t *tokens)
{
    struct scheduler_options options = world_options(1, 512);
    static struct world other;
    world_init(&other, &options);
    CHECK(world_submit_picture(&other, id, n_text, width, height, guidance, NULL) == STATUS_OK);
    world_run(&other, 5000);
    memcpy(tokens, other.requests[id].tokens,
           (size_t)other.requests[id].n_tokens * sizeof(*tokens));
    world_fini(&other);
}

#endif
