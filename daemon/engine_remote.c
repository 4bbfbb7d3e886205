/*
 * engine_remote.c - workers of other machines in the loop: the door is opened, who comes gets the
 * first empty place, and whoever asks is told what is waited for.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/engine_state.h"
#include "daemon/stages_remote.h"

/* ---- what the options say ---- */

/* The first stage of this machine that takes activations from another one; false: there is none. */
static bool find_first_behind(const struct engine *engine, int *pipeline, int *stage)
{
    const struct remote_places *places = &engine->remote_places;
    for (*pipeline = 0; *pipeline < engine->options.n_pipelines; (*pipeline)++)
        for (*stage = 1; *stage < engine->options.n_stages; (*stage)++)
            if (!places->is_remote[*pipeline][*stage] && places->is_remote[*pipeline][*stage - 1])
                return true;
    return false;
}

static enum status check_options(struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    enum status st = remote_places_parse(&engine->remote_places, options->remote_stages,
                                         options->n_pipelines, options->n_stages, err);
    if (st != STATUS_OK)
        return st;
    bool is_wanted = engine->remote_places.n > 0;
    if (is_wanted && (!options->worker_listen || !options->worker_key))
        return error_set(err, STATUS_INVALID,
                         "--remote-stages needs --worker-listen HOST:PORT, where their workers "
                         "come, and --worker-key FILE (mgpt make-keys writes it)");
    if (!is_wanted && (options->worker_listen || options->worker_key))
        return error_set(err, STATUS_INVALID,
                         "--worker-listen and --worker-key without --remote-stages: which stages "
                         "shall workers of other machines fill?");
    return STATUS_OK;
}

static enum status choose_link_host(struct engine *engine, struct error *err)
{
    const char *given = engine->options.link_host;
    const char *host = given ? given : remote_host(engine->remote);
    int pipeline, stage;
    snprintf(engine->link_host, sizeof(engine->link_host), "%s", host);
    if (find_first_behind(engine, &pipeline, &stage) && endpoint_is_wildcard(host))
        return error_set(err, STATUS_INVALID,
                         "stage %d.%d runs here and follows one of another machine: --link-host "
                         "ADDRESS must say where that reaches this machine",
                         pipeline, stage);
    return STATUS_OK;
}

enum status engine_open_remote(struct engine *engine, struct error *err)
{
    enum status st = check_options(engine, err);
    if (st != STATUS_OK || engine->remote_places.n == 0)
        return st;
    struct remote_options options = {.context = engine->crew.context,
                                     .listen = engine->options.worker_listen,
                                     .key_path = engine->options.worker_key,
                                     .n_places = engine->remote_places.n};
    st = remote_open(&engine->remote, &options, err);
    return st == STATUS_OK ? choose_link_host(engine, err) : st;
}

/* ---- the loop ---- */

/* A worker that says Hello again has lost what it was told before. */
static void lose_peer(struct engine *engine, const struct frame_peer *peer, int64_t now_ms)
{
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = 0; k < stages->n; k++)
            if (worker_is_peer(&stages->list[k].worker, peer))
                stages_lose(stages, k, now_ms, "it began anew");
    }
}

void engine_remote_message(struct engine *engine, const struct frame_peer *peer,
                           const struct message *message)
{
    int64_t now_ns = clock_monotonic_ns();
    if (message->type == MESSAGE_HELLO)
        lose_peer(engine, peer, now_ns / 1000000);
    for (int p = 0; p < engine->n_pipelines; p++)
        if (pipeline_on_message(engine->pipelines[p], peer, message, now_ns))
            return;
    remote_on_message(engine->remote, peer, message, now_ns / 1000000);
}

/* Places of remote workers that are empty. */
static int count_missing(const struct engine *engine)
{
    int n = 0;
    for (int p = 0; p < engine->n_pipelines; p++)
        n += stages_n_missing(pipeline_stages(engine->pipelines[p]));
    return n;
}

static void log_missing(struct engine *engine)
{
    int n = count_missing(engine);
    const char *first = "";
    if (n == engine->n_missing_logged)
        return;
    engine->n_missing_logged = n;
    for (int p = engine->n_pipelines - 1; p >= 0; p--) {
        const struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = stages->n - 1; k >= 0; k--)
            if (stages->list[k].worker.is_remote && !worker_is_alive(&stages->list[k].worker))
                first = stages->list[k].worker.name;
    }
    if (n > 0)
        log_info("engine", "waiting for workers missing=%d places=%d first=\"%s\" endpoint=%s", n,
                 engine->remote_places.n, first, remote_endpoint(engine->remote));
    else
        log_info("engine", "all workers are here places=%d", engine->remote_places.n);
}

void engine_deal_places(struct engine *engine, int64_t now_ms)
{
    struct remote_worker worker;
    if (!engine->remote)
        return;
    bool ended = remote_tend(engine->remote, now_ms);
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = 0; k < stages->n; k++) {
            if (ended && stages->list[k].worker.is_remote)
                stages->list[k].worker.pinged_ms = 0; /* was it this one's? A ping tells */
            if (stages_want_worker(stages, k, now_ms) && remote_take(engine->remote, &worker))
                stages_admit(stages, k, &worker, now_ms);
        }
    }
    remote_tell_waiting(engine->remote);
    log_missing(engine);
}

/* Together the stages cannot work: those who came from elsewhere go, and others may come. */
void engine_dismiss_all(struct engine *engine, const struct error *err, int64_t now_ms)
{
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = 0; k < stages->n; k++)
            if (stages->list[k].worker.is_remote && worker_is_alive(&stages->list[k].worker))
                stages_dismiss(stages, k, now_ms, err->code, err->text);
    }
}

void engine_fill_remote(const struct engine *engine, struct engine_stats *out)
{
    out->n_remote = engine->remote_places.n;
    out->n_remote_missing = count_missing(engine);
    out->n_remote_spare = engine->remote ? remote_n_waiting(engine->remote) : 0;
    out->remote_notice[0] = out->remote_endpoint[0] = 0;
    if (!engine->remote)
        return;
    snprintf(out->remote_endpoint, sizeof(out->remote_endpoint), "%s",
             remote_endpoint(engine->remote));
    for (int p = 0; p < engine->n_pipelines; p++) {
        const struct stages *stages = pipeline_stages(engine->pipelines[p]);
        if (stages->notice.code != STATUS_OK)
            snprintf(out->remote_notice, sizeof(out->remote_notice), "%s", stages->notice.text);
    }
}
