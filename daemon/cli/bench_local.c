/*
 * bench_local.c - the server under load is an engine of our own: the way of `mgpt generate
 * --local`, without HTTP.
 */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/cli/bench.h"
#include "daemon/cli/session.h"

struct local {
    struct bench_target target; /* first */
    const struct bench_settings *settings;
    struct session session;
    struct mailbox *box;
    int *n_prompt; /* [n_tags] by tag */
    int n_tags;
};

static enum status keep_prompt_length(struct local *local, int tag, int n_prompt, struct error *err)
{
    if (tag >= local->n_tags) {
        int n = 2 * tag + 64;
        int *more = realloc(local->n_prompt, (size_t)n * sizeof(*more));
        if (!more)
            return error_set(err, STATUS_NOMEM, "cannot allocate %d prompt lengths", n);
        local->n_prompt = more;
        local->n_tags = n;
    }
    local->n_prompt[tag] = n_prompt;
    return STATUS_OK;
}

static enum status submit(struct bench_target *target, const struct bench_order *order,
                          struct error *err)
{
    struct local *local = (struct local *)(void *)target;
    const struct served_model *model = local->session.model;
    struct ids prompt = {0};
    struct engine_request request = {.work = ENGINE_PICTURE,
                                     .tag = (uint64_t)order->tag,
                                     .width = order->size.width,
                                     .height = order->size.height,
                                     .decode = !local->settings->no_pixels};
    settings_sampling(&request.sampling, &local->settings->base, &model->settings);
    request.sampling.seed = order->seed;
    enum status st = served_model_text_to_image(model, order->prompt, strlen(order->prompt),
                                                order->size, &prompt, err);
    if (st == STATUS_OK)
        st = served_model_check_length(model, prompt.n, order->size, err);
    if (st == STATUS_OK)
        st = keep_prompt_length(local, order->tag, (int)prompt.n, err);
    if (st == STATUS_OK) {
        request.prompt = prompt.ids;
        request.n_prompt = (int)prompt.n;
        st = engine_submit(local->session.engine, &request, 1, local->box, NULL, err);
    }
    ids_fini(&prompt);
    return st;
}

static enum status next(struct bench_target *target, int wait_ms, struct bench_event *event,
                        struct error *err)
{
    struct local *local = (struct local *)(void *)target;
    struct mail *mail = mailbox_wait(local->box, wait_ms);
    const struct engine_event *from = (const struct engine_event *)(void *)mail;
    (void)err;
    *event = (struct bench_event){.kind = BENCH_NOTHING};
    if (!mail)
        return STATUS_OK;
    event->tag = (int)from->tag;
    if (from->kind == ENGINE_EVENT_FAILED) {
        event->kind = BENCH_FAILED;
        snprintf(event->text, sizeof(event->text), "%.*s", (int)sizeof(event->text) - 1,
                 from->error.text);
    } else if (from->kind == ENGINE_EVENT_FINISHED) {
        event->kind = BENCH_FINISHED;
        event->n_prompt = local->n_prompt[event->tag];
    } else if (from->rows_done > 0) {
        event->kind = BENCH_ROW;
    }
    mail_destroy(mail);
    return STATUS_OK;
}

static enum status figures(struct bench_target *target, struct bench_figures *out,
                           struct error *err)
{
    struct local *local = (struct local *)(void *)target;
    struct engine_stats *stats = engine_stats(local->session.engine);
    if (!stats)
        return error_set(err, STATUS_NOMEM, "cannot allocate the engine's figures");
    *out = (struct bench_figures){.plans = (double)stats->n_plans,
                                  .rows = (double)stats->n_plan_rows,
                                  .useful_s = (double)stats->useful_ns * 1e-9,
                                  .active_s = (double)stats->active_ns * 1e-9,
                                  .codec_busy_s = (double)stats->codec_busy_ns * 1e-9,
                                  .n_pipelines = 1,
                                  .n_stages = stats->n_stages};
    for (int i = 0; i < stats->n_stages; i++) {
        const struct engine_stage_stats *from = &stats->stages[i];
        out->link_bytes += (double)from->link_bytes;
        out->weight_bytes += (double)from->weight_bytes;
        if (i >= BENCH_STAGES_MAX)
            continue;
        struct bench_stage *stage = &out->stages[i];
        stage->pipeline = from->pipeline;
        stage->stage = from->stage;
        stage->busy_s = (double)from->busy_ns * 1e-9;
        stage->wait_s = (double)from->wait_ns * 1e-9;
        memcpy(stage->units, from->units, sizeof(stage->units));
    }
    free(stats);
    return STATUS_OK;
}

static void close_local(struct bench_target *target)
{
    struct local *local = (struct local *)(void *)target;
    if (local->box)
        mailbox_close(local->box);
    session_end(&local->session);
    mailbox_drop(local->box);
    free(local->n_prompt);
    free(local);
}

static enum status start(struct local *local, const struct settings *settings, int n_open_max,
                         struct error *err)
{
    struct engine_options options;
    struct bench_target *target = &local->target;
    enum status st = served_model_open(&local->session.model, settings->local, SERVED_ALL, err);
    if (st != STATUS_OK)
        return st;
    const struct served_model *model = local->session.model;
    settings_engine(&options, settings, model);
    options.n_pipelines = 1;
    options.codec = !local->settings->no_pixels;
    options.queue_max = n_open_max;
    snprintf(target->name, sizeof(target->name), "%.*s", BENCH_TEXT_BYTES - 1, model->name);
    target->config = model->config;
    target->code_rows = model->vocabulary->code_id_max - model->vocabulary->code_id_min + 1;
    target->item_bytes = options.compute == ENGINE_F32 ? 4 : 2;
    target->guidance = settings->guidance < 0 ? model->settings.guidance_scale : settings->guidance;
    st = mailbox_create(&local->box, 0, err);
    return st == STATUS_OK ? session_start(&local->session, &options, err) : st;
}

enum status bench_local_open(struct bench_target **out, const struct bench_settings *settings,
                             int n_open_max, struct error *err)
{
    struct local *local = calloc(1, sizeof(*local));
    *out = NULL;
    if (!local)
        return error_set(err, STATUS_NOMEM, "cannot allocate a bench");
    local->target = (struct bench_target){
        .here = true, .submit = submit, .next = next, .figures = figures, .close = close_local};
    local->settings = settings;
    enum status st = start(local, &settings->base, n_open_max, err);
    if (st != STATUS_OK) {
        close_local(&local->target);
        return st;
    }
    *out = &local->target;
    return STATUS_OK;
}
