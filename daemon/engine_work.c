/*
 * engine_work.c - what happens to a request inside the loop: placed, followed, answered, forgotten.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/engine_state.h"
#include "daemon/limits.h"
#include "daemon/placement.h"
#include "model/unirep.h"

static int find_open(const struct engine *engine, uint64_t id)
{
    for (int i = 0; i < engine->n_open; i++)
        if (engine->open[i]->id == id)
            return i;
    return -1;
}

static struct open_request *open_view(const struct engine *engine, uint64_t id)
{
    int i = find_open(engine, id);
    return i < 0 ? NULL : engine->open[i];
}

static void release_promise(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->n_promised--;
    CHECK(engine->n_promised >= 0);
    pthread_mutex_unlock(&engine->lock);
}

/* Forgets a request whose last event was posted. */
static void forget(struct engine *engine, struct open_request *open)
{
    int i = find_open(engine, open->id);
    CHECK(i >= 0);
    engine->open[i] = engine->open[--engine->n_open];
    open_request_destroy(open);
    release_promise(engine);
}

static void end_failed(struct engine *engine, struct open_request *open, const struct error *err,
                       int64_t now_ms)
{
    if (err->code == STATUS_CANCELED)
        engine->figures.n_canceled++;
    else
        engine->figures.n_failed++;
    open_request_post_failed(open, err, now_ms);
    forget(engine, open);
}

/* ---- placing ---- */

static int count_in_pipeline(const struct engine *engine, int pipeline)
{
    int n = 0;
    for (int i = 0; i < engine->n_open; i++)
        n += engine->open[i]->place == OPEN_IN_PIPELINE && engine->open[i]->pipeline == pipeline;
    return n;
}

static int choose_pipeline(const struct engine *engine)
{
    struct placement_load loads[ENGINE_PIPELINES_MAX];
    for (int p = 0; p < engine->n_pipelines; p++)
        loads[p] = (struct placement_load){
            .is_ready = pipeline_stages(engine->pipelines[p])->ready,
            .backlog_ns = scheduler_backlog_ns(pipeline_scheduler(engine->pipelines[p])),
            .n_requests = count_in_pipeline(engine, p)};
    return placement_choose(loads, engine->n_pipelines);
}

static enum status place_in_pipeline(struct engine *engine, struct open_request *open,
                                     int64_t now_ns, struct error *err)
{
    static const enum scheduler_mode modes[] = {[ENGINE_PICTURE] = SCHEDULER_PICTURE,
                                                [ENGINE_FREE] = SCHEDULER_FREE,
                                                [ENGINE_PROBE] = SCHEDULER_PROBE};
    const struct engine_request *request = &open->request;
    if (engine->n_pipelines == 0)
        return error_set(err, STATUS_UNSUPPORTED, "this engine has no transformer");
    if (!engine->has_blocks)
        return STATUS_OK;
    open->pipeline = choose_pipeline(engine);
    struct scheduler_request wanted = {.id = open->id,
                                       .mode = modes[request->work],
                                       .priority = request->priority,
                                       .prompt = request->prompt,
                                       .n_prompt = request->n_prompt,
                                       .max_tokens = request->max_tokens,
                                       .sampling = request->sampling,
                                       .positions = request->positions,
                                       .n_positions = request->n_positions,
                                       .chunk = engine->options.prefill_rows};
    enum status st = scheduler_submit(pipeline_scheduler(engine->pipelines[open->pipeline]), now_ns,
                                      &wanted, err);
    if (st == STATUS_OK)
        open->place = OPEN_IN_PIPELINE;
    return st;
}

static enum status put_at(struct side *side, struct open_request *open, enum message_type type,
                          struct error *err)
{
    if (!side)
        return error_set(err, STATUS_UNSUPPORTED, "this engine has no worker for that");
    struct side_job job = {.id = open->id, .type = type, .body = &open->body.base};
    enum status st = side_put(side, &job, err);
    if (st == STATUS_OK)
        open->place = OPEN_AT_SIDE;
    return st;
}

static enum status place(struct engine *engine, struct open_request *open, int64_t now_ns,
                         struct error *err)
{
    const struct engine_request *request = &open->request;
    size_t n_codes = (size_t)(request->width / UNIREP_PATCH_PIXELS) *
                     (size_t)(request->height / UNIREP_PATCH_PIXELS);
    enum status st;
    switch (request->work) {
    case ENGINE_ENCODE:
        return put_at(engine->codec, open, open_request_encode_body(open), err);
    case ENGINE_DRAW:
        return put_at(engine->draws, open, open_request_draw_body(open), err);
    case ENGINE_DECODE:
        st = open_request_decode_body(open, request->codes, n_codes, err);
        return st == STATUS_OK ? put_at(engine->codec, open, MESSAGE_DECODE, err) : st;
    default:
        return place_in_pipeline(engine, open, now_ns, err);
    }
}

static void submit(struct engine *engine, struct open_request *open, int64_t now_ns)
{
    struct error err;
    open->submitted_ms = now_ns / 1000000;
    engine->open[engine->n_open++] = open;
    engine->figures.prompt_tokens += (uint64_t)open->request.n_prompt;
    if (place(engine, open, now_ns, &err) != STATUS_OK)
        end_failed(engine, open, &err, now_ns / 1000000);
}

void engine_place_waiting(struct engine *engine, int64_t now_ns)
{
    struct error err;
    for (int i = 0; i < engine->n_open;) {
        struct open_request *open = engine->open[i];
        if (open->place == OPEN_NEW && place(engine, open, now_ns, &err) != STATUS_OK)
            end_failed(engine, open, &err, now_ns / 1000000); /* another takes its place */
        else
            i++;
    }
}

static void cancel(struct engine *engine, struct open_request *open, int64_t now_ns)
{
    struct error err;
    if (open->place == OPEN_IN_PIPELINE) {
        /* Its event CANCELED comes back from the scheduler and ends the request. */
        scheduler_cancel(pipeline_scheduler(engine->pipelines[open->pipeline]), now_ns, open->id,
                         &err);
        return;
    }
    if (engine->codec)
        side_cancel(engine->codec, open->id);
    if (engine->draws)
        side_cancel(engine->draws, open->id);
    error_set(&err, STATUS_CANCELED, "the request was canceled");
    end_failed(engine, open, &err, now_ns / 1000000);
}

void engine_take_mail(struct engine *engine, struct engine_mail *mail, int64_t now_ns)
{
    struct open_request *open;
    switch (mail->kind) {
    case ENGINE_MAIL_SUBMIT:
        for (int i = 0; i < mail->n; i++) {
            open = mail->requests[i];
            mail->requests[i] = NULL;
            submit(engine, open, now_ns);
        }
        break;
    case ENGINE_MAIL_CANCEL:
        open = open_view(engine, mail->id);
        if (open)
            cancel(engine, open, now_ns);
        break;
    case ENGINE_MAIL_STOP:
        engine->stop_deadline_ms = mail->deadline_ms;
        break;
    case ENGINE_MAIL_QUIT:
        engine->quit = true;
        break;
    }
    mail_destroy(&mail->mail);
}

void engine_fail_all(struct engine *engine, const struct error *err, int64_t now_ms)
{
    while (engine->n_open > 0) {
        struct open_request *open = engine->open[engine->n_open - 1];
        if (open->place == OPEN_IN_PIPELINE)
            scheduler_cancel(pipeline_scheduler(engine->pipelines[open->pipeline]),
                             now_ms * 1000000, open->id, NULL);
        if (open->place == OPEN_AT_SIDE && engine->codec)
            side_cancel(engine->codec, open->id);
        if (open->place == OPEN_AT_SIDE && engine->draws)
            side_cancel(engine->draws, open->id);
        end_failed(engine, open, err, now_ms);
    }
}

/* ---- the scheduler's events ---- */

static int32_t *copy_ids(const int32_t *ids, size_t n)
{
    int32_t *copy = malloc((n + 1) * sizeof(*copy));
    if (copy && n > 0)
        memcpy(copy, ids, n * sizeof(*copy));
    return copy;
}

/* A picture tells of whole rows, a text of each token. */
static void tell_progress(struct engine *engine, struct open_request *open, int64_t now_ns)
{
    struct scheduler_progress progress;
    bool picture = open->request.work == ENGINE_PICTURE;
    if (picture && (int)open->tokens.n / open->row_tokens == open->n_told / open->row_tokens)
        return;
    struct engine_event *event = open_request_event(open, ENGINE_EVENT_PROGRESS, now_ns / 1000000);
    if (!event)
        return;
    event->n_ids = (int)open->tokens.n - open->n_told;
    event->ids = copy_ids(open->tokens.ids + open->n_told, (size_t)event->n_ids);
    if (!event->ids)
        event->n_ids = 0;
    if (scheduler_progress(pipeline_scheduler(engine->pipelines[open->pipeline]), now_ns, open->id,
                           &progress, NULL) == STATUS_OK &&
        progress.remaining_ns >= 0)
        event->eta_s = (double)progress.remaining_ns * 1e-9;
    open->n_told = (int)open->tokens.n;
    if (open->first_row_ms == 0 && picture)
        open->first_row_ms = now_ns / 1000000;
    open_request_post(open, event);
}

static void count_tokens(struct engine *engine, const struct open_request *open, int n)
{
    engine->figures.generation_tokens += (uint64_t)n;
    if (open->request.work == ENGINE_PICTURE)
        engine->figures.image_tokens += (uint64_t)n;
}

static void on_tokens(struct engine *engine, struct open_request *open,
                      const struct scheduler_event *event, int64_t now_ns)
{
    int64_t now_ms = now_ns / 1000000;
    int known = (int)open->tokens.n - event->first_ordinal;
    engine->last_token_ms = open->last_token_ms = now_ms;
    if (open->first_token_ms == 0)
        open->first_token_ms = now_ms;
    CHECK(known >= 0);
    if (known >= event->n_tokens)
        return;
    count_tokens(engine, open, event->n_tokens - known);
    struct error err;
    if (ids_append(&open->tokens, event->tokens + known, (size_t)(event->n_tokens - known), &err) !=
        STATUS_OK) {
        log_warn("engine", "progress not kept reason=\"%s\"", err.text);
        return;
    }
    tell_progress(engine, open, now_ns);
}

static double seconds(int64_t from_ms, int64_t to_ms)
{
    return to_ms > from_ms ? (double)(to_ms - from_ms) * 1e-3 : 0;
}

static void record(struct engine *engine, const struct open_request *open, int n_tokens,
                   int64_t now_ms)
{
    struct histogram *histograms = engine->figures.histograms;
    if ((open->request.work != ENGINE_PICTURE && open->request.work != ENGINE_FREE) ||
        n_tokens == 0)
        return;
    double decode = seconds(open->first_token_ms, open->last_token_ms);
    histogram_add(&histograms[ENGINE_QUEUE_TIME], seconds(open->submitted_ms, open->started_ms));
    histogram_add(&histograms[ENGINE_FIRST_TOKEN],
                  seconds(open->submitted_ms, open->first_token_ms));
    if (open->first_row_ms)
        histogram_add(&histograms[ENGINE_FIRST_ROW],
                      seconds(open->submitted_ms, open->first_row_ms));
    histogram_add(&histograms[ENGINE_PREFILL_TIME],
                  seconds(open->started_ms, open->first_token_ms));
    histogram_add(&histograms[ENGINE_DECODE_TIME], decode);
    histogram_add(&histograms[ENGINE_INFERENCE_TIME],
                  seconds(open->started_ms, open->last_token_ms));
    histogram_add(&histograms[ENGINE_PER_TOKEN], decode / n_tokens);
    histogram_add(&histograms[ENGINE_WHOLE_TIME], seconds(open->submitted_ms, now_ms));
    histogram_add(&histograms[ENGINE_PROMPT_TOKENS], open->request.n_prompt);
    histogram_add(&histograms[ENGINE_GENERATED_TOKENS], n_tokens);
}

static void post_finished(struct engine *engine, struct open_request *open,
                          struct engine_event *event)
{
    if (open->request.work == ENGINE_PICTURE || open->request.work == ENGINE_FREE)
        engine->figures.n_succeeded++;
    record(engine, open, event->n_ids, event->now_ms);
    open_request_post(open, event);
    forget(engine, open);
}

/* Tokens and logits move into the event. */
static struct engine_event *finished_event(struct open_request *open, int64_t now_ms)
{
    struct engine_event *event = open_request_event(open, ENGINE_EVENT_FINISHED, now_ms);
    if (!event)
        return NULL;
    event->ids = open->tokens.ids;
    event->n_ids = (int)open->tokens.n;
    open->tokens = (struct ids){0};
    if (open->request.work == ENGINE_PROBE) {
        event->logits = open->probe_logits;
        event->n_logits_rows = open->request.n_positions;
        event->vocab = open->vocab;
        open->probe_logits = NULL;
    }
    return event;
}

static enum status start_decode(struct engine *engine, struct open_request *open, struct error *err)
{
    struct ids codes = {0};
    const struct vocabulary *vocabulary = engine->options.model->vocabulary;
    for (size_t i = 0; i < open->tokens.n; i++) {
        int code = vocabulary_code(vocabulary, open->tokens.ids[i]);
        if (code >= 0 && ids_push(&codes, code, err) != STATUS_OK)
            break;
    }
    enum status st = open_request_decode_body(open, codes.ids, codes.n, err);
    ids_fini(&codes);
    return st == STATUS_OK ? put_at(engine->codec, open, MESSAGE_DECODE, err) : st;
}

static void on_finished(struct engine *engine, struct open_request *open,
                        const struct scheduler_event *event, int64_t now_ms)
{
    struct error err;
    if (event->n_tokens > (int)open->tokens.n &&
        ids_append(&open->tokens, event->tokens + open->tokens.n,
                   (size_t)event->n_tokens - open->tokens.n, &err) != STATUS_OK) {
        end_failed(engine, open, &err, now_ms);
        return;
    }
    if (open->request.work == ENGINE_PICTURE && open->request.decode) {
        if (start_decode(engine, open, &err) != STATUS_OK)
            end_failed(engine, open, &err, now_ms);
        return;
    }
    struct engine_event *last = finished_event(open, now_ms);
    if (last) {
        post_finished(engine, open, last);
        return;
    }
    error_set(&err, STATUS_NOMEM, "cannot allocate the answer");
    end_failed(engine, open, &err, now_ms);
}

static void on_event(struct engine *engine, const struct scheduler_event *event, int64_t now_ns)
{
    struct open_request *open = open_view(engine, event->request);
    int64_t now_ms = now_ns / 1000000;
    struct error err;
    if (!open)
        return;
    switch (event->kind) {
    case SCHEDULER_STARTED:
        open->started_ms = now_ms;
        open_request_post(open, open_request_event(open, ENGINE_EVENT_STARTED, now_ms));
        break;
    case SCHEDULER_TOKENS:
        on_tokens(engine, open, event, now_ns);
        break;
    case SCHEDULER_FINISHED:
        on_finished(engine, open, event, now_ms);
        break;
    case SCHEDULER_FAILED:
        error_set(&err, STATUS_INTERNAL, "%s", event->text ? event->text : "the step failed");
        end_failed(engine, open, &err, now_ms);
        break;
    case SCHEDULER_CANCELED:
        error_set(&err, STATUS_CANCELED, "the request was canceled");
        end_failed(engine, open, open->lost ? &open->reason : &err, now_ms);
        break;
    }
}

void engine_take_events(struct engine *engine, struct pipeline *pipeline, int64_t now_ns)
{
    struct scheduler_event event;
    while (scheduler_next_event(pipeline_scheduler(pipeline), &event))
        on_event(engine, &event, now_ns);
}

/* ---- hooks of the pipelines ---- */

static void on_pass(void *context, uint64_t request)
{
    struct open_request *open = open_view(context, request);
    if (open)
        open->n_passes++;
}

static void on_logits(void *context, uint64_t request, int ordinal, const float *logits, int vocab)
{
    struct open_request *open = open_view(context, request);
    if (!open || !open->probe_logits)
        return;
    CHECK(ordinal >= 0);
    CHECK(ordinal < open->request.n_positions);
    memcpy(open->probe_logits + (size_t)ordinal * (size_t)vocab, logits,
           (size_t)vocab * sizeof(float));
}

static void on_lost(void *context, int pipeline, const struct error *reason)
{
    struct engine *engine = context;
    struct scheduler *scheduler = pipeline_scheduler(engine->pipelines[pipeline]);
    for (int i = 0; i < engine->n_open; i++) {
        struct open_request *open = engine->open[i];
        struct scheduler_progress progress;
        if (open->place != OPEN_IN_PIPELINE || open->pipeline != pipeline ||
            scheduler_progress(scheduler, clock_monotonic_ns(), open->id, &progress, NULL) !=
                STATUS_OK ||
            !progress.running)
            continue;
        if (++open->n_losses <= REQUEST_LOSSES_MAX)
            continue;
        open->lost = true;
        open->reason = *reason;
        error_wrap(&open->reason, STATUS_LOST, "given up after %d losses of the pipeline",
                   open->n_losses);
        scheduler_cancel(scheduler, clock_monotonic_ns(), open->id, NULL);
    }
}

const struct pipeline_hooks engine_pipeline_hooks = {
    .on_pass = on_pass, .on_logits = on_logits, .on_lost = on_lost};

/* ---- hooks of the side workers ---- */

static bool take_rgb(struct engine_event *event, const Mgpt__Decoded *decoded)
{
    size_t bytes = (size_t)event->width * (size_t)event->height * 3;
    if (decoded->rgb.len != bytes)
        return false;
    event->rgb = malloc(bytes);
    if (event->rgb)
        memcpy(event->rgb, decoded->rgb.data, bytes);
    return event->rgb != NULL;
}

static bool take_u32(struct engine_event *event, const uint32_t *ids, size_t n)
{
    event->ids = copy_ids((const int32_t *)(const void *)ids, n);
    event->n_ids = (int)n;
    return event->ids != NULL;
}

static bool take_answer(struct engine_event *event, const struct open_request *open,
                        const struct message *message)
{
    if (message->type == MESSAGE_DECODED)
        return take_rgb(event, message->decoded);
    if (message->type == MESSAGE_DRAWN)
        return (int)message->drawn->n_tokens == open->request.n_seeds &&
               take_u32(event, message->drawn->tokens, message->drawn->n_tokens);
    size_t n = (size_t)(event->width / UNIREP_PATCH_PIXELS) *
               (size_t)(event->height / UNIREP_PATCH_PIXELS);
    return message->type == MESSAGE_ENCODED && message->encoded->n_codes == n &&
           take_u32(event, message->encoded->codes, n);
}

static void on_side_answer(void *context, uint64_t id, const struct message *message)
{
    struct engine *engine = context;
    struct open_request *open = open_view(engine, id);
    if (!open)
        return;
    struct engine_event *event = finished_event(open, clock_monotonic_ms());
    if (event && take_answer(event, open, message)) {
        post_finished(engine, open, event);
        return;
    }
    struct error err;
    error_set(&err, STATUS_INTERNAL, "the worker's %s does not fit the question",
              message_type_name(message->type));
    if (event)
        mail_destroy(&event->mail);
    end_failed(engine, open, &err, clock_monotonic_ms());
}

static void on_side_failed(void *context, uint64_t id, const struct error *err)
{
    struct engine *engine = context;
    struct open_request *open = open_view(engine, id);
    if (open)
        end_failed(engine, open, err, clock_monotonic_ms());
}

const struct side_hooks engine_side_hooks = {.on_answer = on_side_answer,
                                             .on_failed = on_side_failed};
