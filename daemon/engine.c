/*
 * engine.c - the door: makes and ends the engine, turns calls into mail for the loop.
 */
#include "daemon/engine.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "daemon/engine_state.h"
#include "daemon/limits.h"
#include "model/unirep.h"
#include "proto/plan.h"

enum {
    STOP_GRACE_MS =
        5 * 1000,       /* beyond a stop's own limit, for the loop to tell the last requests */
    OUTPUTS_MAX = 4096, /* of a plan; a probe asks for PLAN_LOGITS_MAX at once at most */
    NO_BLOCKS_YET = 2,  /* of a scheduler that gets no requests before the number is chosen */
};

/* ---- creation ---- */

static int count_local(const struct engine *engine, int n_pipelines)
{
    int n = 0;
    for (int p = 0; p < n_pipelines; p++)
        for (int k = 0; k < engine->options.n_stages; k++)
            n += !engine->remote_places.is_remote[p][k];
    return n;
}

static void fill_stages_options(struct stages_options *out, struct engine *engine, int pipeline,
                                const struct scheduler_options *scheduler)
{
    const struct engine_options *options = &engine->options;
    *out = (struct stages_options){.crew = &engine->crew,
                                   .checkpoint = options->model->checkpoint,
                                   .pipeline = pipeline,
                                   .n_stages = options->n_stages,
                                   .is_remote = engine->remote_places.is_remote[pipeline],
                                   .link_host = engine->link_host,
                                   .first_local = count_local(engine, pipeline),
                                   .n_local = count_local(engine, options->n_pipelines),
                                   .cut = engine->cut,
                                   .compute = options->compute == ENGINE_F32
                                                  ? MGPT__COMPUTE__COMPUTE_F32
                                                  : MGPT__COMPUTE__COMPUTE_BF16,
                                   .link = options->link,
                                   .kv_blocks = options->kv_blocks,
                                   .rows_max = scheduler->rows_max,
                                   .sequences_max = 2 * scheduler->running_max,
                                   .outputs_max = scheduler->rows_max,
                                   .step_wait_ms = options->step_wait_ms,
                                   .load_wait_ms = options->load_wait_ms};
}

static enum status create_pipelines(struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    enum status st = STATUS_OK;
    engine->has_blocks = options->kv_blocks > 0 || options->n_pipelines == 0;
    if (options->n_pipelines == 0)
        return STATUS_OK;
    struct pipeline_options pipeline = {.vocab = options->model->config.vocab,
                                        .max_positions = options->model->config.max_positions,
                                        .hooks = engine_pipeline_hooks};
    scheduler_options_init(&pipeline.scheduler);
    pipeline.scheduler.vocabulary = options->model->vocabulary;
    pipeline.scheduler.vocab = options->model->config.vocab;
    pipeline.scheduler.n_stages = options->n_stages;
    pipeline.scheduler.kv_blocks = options->kv_blocks > 0 ? options->kv_blocks : NO_BLOCKS_YET;
    pipeline.scheduler.max_positions = options->model->config.max_positions;
    pipeline.scheduler.queue_max = options->queue_max;
    pipeline.hooks.context = engine;
    for (int p = 0; p < options->n_pipelines && st == STATUS_OK; p++) {
        fill_stages_options(&pipeline.stages, engine, p, &pipeline.scheduler);
        st = pipeline_create(&engine->pipelines[p], &pipeline, err);
        engine->n_pipelines += st == STATUS_OK;
    }
    return st;
}

static enum status create_side(struct engine *engine, struct side **out, Mgpt__Role role,
                               struct error *err)
{
    struct side_options options = {.crew = &engine->crew,
                                   .role = role,
                                   .load_wait_ms = engine->options.load_wait_ms,
                                   .pixels_max = engine->options.picture_pixels,
                                   .hooks = engine_side_hooks};
    options.hooks.context = engine;
    return side_create(out, &options, err);
}

static enum status create_workers(struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    enum status st = crew_open(&engine->crew, options->worker_path, err);
    if (st != STATUS_OK)
        return st;
    engine->crew.model_dir = options->model->folder;
    engine->crew.vq_dir = options->vq_dir;
    engine->crew.device = options->device;
    engine->crew.log_level = options->log_level;
    engine->crew.no_confine = options->no_confine;
    engine->crew.threads = options->threads;
    st = engine_open_remote(engine, err);
    if (st == STATUS_OK)
        st = create_pipelines(engine, err);
    if (st == STATUS_OK && options->codec)
        st = create_side(engine, &engine->codec, MGPT__ROLE__ROLE_CODEC, err);
    if (st == STATUS_OK && options->draws)
        st = create_side(engine, &engine->draws, MGPT__ROLE__ROLE_STAGE, err);
    return st;
}

static enum status allocate(struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    engine->items_max = 2 + REMOTE_POLL_ITEMS + options->n_pipelines * options->n_stages + 2;
    engine->items = calloc((size_t)engine->items_max, sizeof(*engine->items));
    engine->open = calloc((size_t)options->queue_max, sizeof(struct open_request *));
    engine->published = calloc(1, sizeof(*engine->published));
    if (!engine->items || !engine->open || !engine->published)
        return error_set(err, STATUS_NOMEM, "cannot allocate the engine");
    return mailbox_create(&engine->box, 0, err);
}

/* As many as the model's positions have codes for, and what pictures are cut to before they are
 * encoded. */
static int default_pixels(const struct served_model *model)
{
    enum { CODE_PIXELS = UNIREP_PATCH_PIXELS * UNIREP_PATCH_PIXELS };
    int64_t target = model->settings.target_size;
    int64_t made = (int64_t)model->config.max_positions * CODE_PIXELS;
    int64_t pixels = made > target * target ? made : target * target;
    bool is_bound = made > 0 && pixels < PLAN_PICTURE_PIXELS_MAX;
    return is_bound ? (int)pixels : PLAN_PICTURE_PIXELS_MAX;
}

static void set_defaults(struct engine_options *options)
{
    if (options->picture_pixels == 0)
        options->picture_pixels = default_pixels(options->model);
    if (!options->device)
        options->device = "cpu";
    if (!options->log_level)
        options->log_level = "info";
    if (options->queue_max == 0)
        options->queue_max = ENGINE_QUEUE_MAX;
    if (options->step_wait_ms == 0)
        options->step_wait_ms = PIPELINE_STEP_WAIT_MS;
    if (options->load_wait_ms == 0)
        options->load_wait_ms = WORKER_LOAD_WAIT_MS;
}

static enum status check_options(const struct engine_options *options, struct error *err)
{
    int n_units = units_count(options->model->config.n_layers);
    if (strcmp(options->device, "cpu") != 0 && strcmp(options->device, "cuda") != 0 &&
        strncmp(options->device, "cuda:", strlen("cuda:")) != 0)
        return error_set(err, STATUS_INVALID, "device '%s', expected cpu, cuda or cuda:K",
                         options->device);
    if (options->picture_pixels < 0 || options->picture_pixels > PLAN_PICTURE_PIXELS_MAX)
        return error_set(err, STATUS_INVALID, "pictures of up to %d pixels, expected at most %d",
                         options->picture_pixels, PLAN_PICTURE_PIXELS_MAX);
    if (options->n_pipelines == 0)
        return STATUS_OK;
    if (options->n_pipelines < 0 || options->n_pipelines > ENGINE_PIPELINES_MAX)
        return error_set(err, STATUS_INVALID, "%d pipelines, expected 1 to %d",
                         options->n_pipelines, ENGINE_PIPELINES_MAX);
    if (options->n_stages < 1 || options->n_stages > n_units ||
        options->n_stages > ENGINE_STAGES_MAX)
        return error_set(err, STATUS_INVALID,
                         "%d stages, expected 1 to %d (halves of layers, embedding and head)",
                         options->n_stages,
                         n_units < ENGINE_STAGES_MAX ? n_units : ENGINE_STAGES_MAX);
    return STATUS_OK;
}

enum status engine_cut_model(struct cut_stage *stages, int *n_stages,
                             const struct engine_options *options, struct error *err)
{
    const struct served_model *model = options->model;
    struct picture_size size = options->picture_size;
    if (size.width == 0)
        size = (struct picture_size){model->settings.default_width, model->settings.default_height};
    const struct cut_question question = {.config = &model->config,
                                          .item_bytes = options->compute == ENGINE_F32 ? 4 : 2,
                                          .n_codes = model->vocabulary->n_codes,
                                          .n_positions = (int)(unirep_length(size) / 2),
                                          .n_stages = options->n_stages,
                                          .text = options->cut};
    return cut_model(stages, n_stages, &question, err);
}

static void init_lock(struct engine *engine)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&engine->lock, NULL);
}

static void init_histograms(struct engine *engine)
{
    for (int i = 0; i < ENGINE_HISTOGRAMS; i++) {
        enum histogram_kind kind = i == ENGINE_PER_TOKEN       ? HISTOGRAM_SHORT_S
                                   : i >= ENGINE_PROMPT_TOKENS ? HISTOGRAM_TOKENS
                                                               : HISTOGRAM_LONG_S;
        histogram_init(&engine->figures.histograms[i], kind);
    }
}

/* The loop takes no signals: they are for the program's own thread. */
static enum status start_thread(struct engine *engine, struct error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int reason = pthread_create(&engine->thread, NULL, engine_loop, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    engine->thread_runs = reason == 0;
    if (reason != 0)
        return error_set_errno(err, STATUS_IO, reason, "cannot start the engine's thread");
    return STATUS_OK;
}

enum status engine_create(struct engine **out, const struct engine_options *options,
                          struct error *err)
{
    *out = NULL;
    struct engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return error_set(err, STATUS_NOMEM, "cannot allocate the engine");
    engine->options = *options;
    engine->next_id = 1;
    set_defaults(&engine->options);
    init_lock(engine);
    init_histograms(engine);
    enum status st = check_options(&engine->options, err);
    if (st == STATUS_OK && options->n_pipelines > 0)
        st = engine_cut_model(engine->cut, &engine->options.n_stages, &engine->options, err);
    if (st == STATUS_OK)
        st = allocate(engine, err);
    if (st == STATUS_OK)
        st = create_workers(engine, err);
    if (st == STATUS_OK) {
        engine_publish(engine, clock_monotonic_ns());
        st = start_thread(engine, err);
    }
    if (st != STATUS_OK) {
        engine_destroy(engine);
        return st;
    }
    *out = engine;
    return STATUS_OK;
}

/* ---- mail ---- */

static void destroy_mail(struct mail *mail)
{
    struct engine_mail *own = (struct engine_mail *)(void *)mail;
    for (int i = 0; i < own->n; i++)
        open_request_destroy(own->requests[i]);
    free(own);
}

static struct engine_mail *new_mail(enum engine_mail_kind kind)
{
    struct engine_mail *mail = calloc(1, sizeof(*mail));
    if (!mail)
        return NULL;
    mail->mail.destroy = destroy_mail;
    mail->kind = kind;
    return mail;
}

/* A stop or a cancel must not be lost for want of a few bytes; such a process is beyond help
 * anyway. */
static void post(struct engine *engine, struct engine_mail *mail)
{
    CHECK(mail != NULL);
    mailbox_post(engine->box, &mail->mail);
}

/* Reserves n places and names the requests, all or none. */
static enum status promise(struct engine *engine, struct engine_mail *mail, uint64_t *ids,
                           struct error *err)
{
    enum status st = STATUS_OK;
    pthread_mutex_lock(&engine->lock);
    if (engine->failed) {
        if (err)
            *err = engine->failure;
        st = engine->failure.code;
    } else if (engine->stopping) {
        st = error_set(err, STATUS_CANCELED, "the server stops");
    } else if (engine->n_promised + mail->n > engine->options.queue_max) {
        engine->n_refused += (uint64_t)mail->n;
        st = error_set(err, STATUS_FULL, "%d requests are open, the limit is %d",
                       engine->n_promised, engine->options.queue_max);
    } else {
        engine->n_promised += mail->n;
        for (int i = 0; i < mail->n; i++) {
            mail->requests[i]->id = engine->next_id++;
            if (ids)
                ids[i] = mail->requests[i]->id;
        }
        /* Posted under the lock, so that a stop comes behind everything that was promised before
         * it. */
        mailbox_post(engine->box, &mail->mail);
    }
    pthread_mutex_unlock(&engine->lock);
    return st;
}

enum status engine_check_picture(const struct engine *engine, int width, int height,
                                 struct error *err)
{
    return open_request_check_picture(width, height, engine->options.picture_pixels, err);
}

enum status engine_submit(struct engine *engine, const struct engine_request *requests, int n,
                          struct mailbox *replies, uint64_t *ids, struct error *err)
{
    CHECK(n >= 1);
    CHECK(n <= ENGINE_BATCH_MAX);
    struct engine_mail *mail = new_mail(ENGINE_MAIL_SUBMIT);
    if (!mail)
        return error_set(err, STATUS_NOMEM, "cannot allocate a request");
    enum status st = STATUS_OK;
    for (int i = 0; i < n && st == STATUS_OK; i++) {
        st = open_request_create(&mail->requests[i], &requests[i], replies,
                                 engine->options.model->config.vocab,
                                 engine->options.picture_pixels, err);
        mail->n += st == STATUS_OK;
    }
    if (st == STATUS_OK)
        st = promise(engine, mail, ids, err);
    if (st != STATUS_OK)
        mail_destroy(&mail->mail);
    return st;
}

void engine_cancel(struct engine *engine, uint64_t id)
{
    struct engine_mail *mail = new_mail(ENGINE_MAIL_CANCEL);
    CHECK(mail != NULL);
    mail->id = id;
    post(engine, mail);
}

/* ---- waiting ---- */

static void deadline_in(struct timespec *deadline, int64_t wait_ms)
{
    int64_t end_ns = clock_monotonic_ns() + wait_ms * 1000000;
    deadline->tv_sec = (time_t)(end_ns / 1000000000);
    deadline->tv_nsec = (long)(end_ns % 1000000000);
}

enum status engine_wait_ready(struct engine *engine, int wait_ms, struct error *err)
{
    struct timespec deadline;
    enum status st = STATUS_OK;
    deadline_in(&deadline, wait_ms);
    pthread_mutex_lock(&engine->lock);
    while (!engine->ready && !engine->failed && st == STATUS_OK)
        if (pthread_cond_timedwait(&engine->changed, &engine->lock, &deadline) != 0)
            st = error_set(err, STATUS_TIMEOUT, "the workers are not loaded after %d ms", wait_ms);
    if (engine->failed) {
        if (err)
            *err = engine->failure;
        st = engine->failure.code;
    } else if (engine->ready) {
        st = STATUS_OK;
    }
    pthread_mutex_unlock(&engine->lock);
    return st;
}

void engine_stop(struct engine *engine, int wait_ms)
{
    struct engine_mail *mail = new_mail(ENGINE_MAIL_STOP);
    CHECK(mail != NULL);
    mail->deadline_ms = clock_monotonic_ms() + wait_ms;
    struct timespec deadline;
    deadline_in(&deadline, (int64_t)wait_ms + STOP_GRACE_MS);
    pthread_mutex_lock(&engine->lock);
    engine->stopping = true;
    mailbox_post(engine->box, &mail->mail);
    while (!engine->drained &&
           pthread_cond_timedwait(&engine->changed, &engine->lock, &deadline) == 0)
        continue;
    pthread_mutex_unlock(&engine->lock);
}

void engine_destroy(struct engine *engine)
{
    if (!engine)
        return;
    if (engine->thread_runs) {
        post(engine, new_mail(ENGINE_MAIL_QUIT));
        pthread_join(engine->thread, NULL);
    }
    for (int p = 0; p < engine->n_pipelines; p++)
        pipeline_destroy(engine->pipelines[p]);
    side_destroy(engine->codec);
    side_destroy(engine->draws);
    remote_close(engine->remote);
    crew_close(&engine->crew);
    if (engine->box)
        mailbox_close(engine->box);
    mailbox_drop(engine->box);
    pthread_cond_destroy(&engine->changed);
    pthread_mutex_destroy(&engine->lock);
    free(engine->items);
    free(engine->open);
    free(engine->published);
    free(engine);
}

int engine_n_stages(const struct engine *engine)
{
    return engine->options.n_stages;
}

struct engine_stats *engine_stats(struct engine *engine)
{
    pthread_mutex_lock(&engine->lock);
    size_t bytes = offsetof(struct engine_stats, stages) +
                   (size_t)engine->published->n_stages * sizeof(engine->published->stages[0]);
    struct engine_stats *copy = malloc(bytes);
    if (copy) {
        memcpy(copy, engine->published, bytes);
        copy->n_refused = engine->n_refused;
    }
    pthread_mutex_unlock(&engine->lock);
    return copy;
}
