/*
 * engine_loop.c - the thread: waits for messages, workers' ends, callers' mail and deadlines, in
 * that order, and acts.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "daemon/engine_state.h"
#include "daemon/limits.h"

/* ---- what to wait for ---- */

static int add_item(struct engine *engine, int n, void *socket, int fd)
{
    CHECK(n < engine->items_max);
    engine->items[n] = (zmq_pollitem_t){.socket = socket, .fd = fd, .events = ZMQ_POLLIN};
    return n + 1;
}

static int list_items(struct engine *engine)
{
    int n = add_item(engine, 0, engine->crew.router, 0);
    n = add_item(engine, n, NULL, mailbox_fd(engine->box));
    if (engine->remote)
        n += remote_poll_items(engine->remote, engine->items + n);
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = 0; k < stages->n; k++)
            if (stages->list[k].worker.process.pid != 0)
                n = add_item(engine, n, NULL, stages->list[k].worker.process.life_fd);
    }
    struct side *sides[] = {engine->codec, engine->draws};
    for (int i = 0; i < 2; i++)
        if (sides[i] && side_worker(sides[i])->process.pid != 0)
            n = add_item(engine, n, NULL, side_worker(sides[i])->process.life_fd);
    return n;
}

static bool has_ended(const struct engine *engine, int n_items,
                      const struct worker_process *process)
{
    if (process->pid == 0)
        return false;
    for (int i = 2; i < n_items; i++)
        if (engine->items[i].fd == process->life_fd && engine->items[i].revents)
            return true;
    return false;
}

static void take_ends(struct engine *engine, int n_items, int64_t now_ms)
{
    static const char why[] = "its process ended";
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = 0; k < stages->n; k++)
            if (has_ended(engine, n_items, &stages->list[k].worker.process))
                stages_lose(stages, k, now_ms, why);
    }
    struct side *sides[] = {engine->codec, engine->draws};
    for (int i = 0; i < 2; i++)
        if (sides[i] && has_ended(engine, n_items, &side_worker(sides[i])->process))
            side_lose(sides[i], now_ms, why);
}

/* ---- control messages ---- */

static void dispatch(struct engine *engine, const struct frame_peer *peer,
                     const struct message *message)
{
    int64_t now_ns = clock_monotonic_ns();
    for (int p = 0; p < engine->n_pipelines; p++)
        if (pipeline_on_message(engine->pipelines[p], peer, message, now_ns))
            return;
    struct side *sides[] = {engine->codec, engine->draws};
    for (int i = 0; i < 2; i++)
        if (sides[i] && side_on_message(sides[i], peer, message, now_ns / 1000000))
            return;
    log_debug("engine", "message of nobody known type=%s", message_type_name(message->type));
}

static void answer_ping(const struct frame_peer *peer, const Mgpt__Ping *ping)
{
    Mgpt__Pong pong = MGPT__PONG__INIT;
    pong.value = ping->value;
    message_send(peer->socket, peer, MESSAGE_PONG, &pong.base, 0, NULL);
}

static void take_messages(struct engine *engine, void *socket)
{
    bool is_remote = socket != engine->crew.router;
    for (int i = 0; i < ENGINE_MESSAGES_MAX; i++) {
        struct frame_peer peer;
        struct message message;
        struct error err;
        enum status st = message_receive(socket, &peer, &message, 0, &err);
        if (st == STATUS_TIMEOUT)
            return;
        if (st == STATUS_INVALID && is_remote) {
            remote_on_bad_frame(engine->remote, &peer, &err, clock_monotonic_ms());
            continue;
        }
        if (st != STATUS_OK) {
            log_warn("engine", "control message refused reason=\"%s\"", err.text);
            if (st != STATUS_INVALID)
                return;
            continue;
        }
        if (message.type == MESSAGE_PING)
            answer_ping(&peer, message.ping);
        else if (is_remote)
            engine_remote_message(engine, &peer, &message);
        else
            dispatch(engine, &peer, &message);
        message_clear(&message);
    }
}

static void take_mails(struct engine *engine)
{
    struct mail *mail;
    while ((mail = mailbox_take(engine->box)))
        engine_take_mail(engine, (struct engine_mail *)(void *)mail, clock_monotonic_ns());
}

/* ---- state for the callers ---- */

static const struct error *find_failure(const struct engine *engine)
{
    for (int p = 0; p < engine->n_pipelines; p++)
        if (pipeline_stages(engine->pipelines[p])->failed)
            return &pipeline_stages(engine->pipelines[p])->reason;
    if (engine->codec && side_failure(engine->codec))
        return side_failure(engine->codec);
    return engine->draws ? side_failure(engine->draws) : NULL;
}

static bool is_ready(const struct engine *engine)
{
    for (int p = 0; p < engine->n_pipelines; p++)
        if (!pipeline_stages(engine->pipelines[p])->ready)
            return false;
    return (!engine->codec || side_ready(engine->codec)) &&
           (!engine->draws || side_ready(engine->draws));
}

static void fill_stage(struct engine_stage_stats *out, const struct engine *engine, int pipeline,
                       int k)
{
    const struct stages *stages = pipeline_stages(engine->pipelines[pipeline]);
    const struct stage *stage = &stages->list[k];
    memset(out, 0, sizeof(*out));
    out->pipeline = pipeline;
    out->stage = k;
    out->pid = worker_pid(&stage->worker);
    out->ready = stage->loaded && stage->epoch == stages->epoch;
    out->link = stages_link_name(stages, k);
    memcpy(out->units, stage->facts.units, sizeof(out->units));
    memcpy(out->digest, stage->facts.digest, sizeof(out->digest));
    memcpy(out->fingerprint, stage->facts.fingerprint, sizeof(out->fingerprint));
    out->weight_bytes = stage->facts.weight_bytes;
    out->kv_bytes = stage->facts.kv_bytes;
    out->activation_bytes = stage->facts.activation_bytes;
    out->resident_bytes = stage->facts.resident_bytes;
    out->file_bytes = stage->facts.file_bytes;
    out->workspace_bytes = stage->facts.workspace_bytes;
    out->recording_bytes = stage->facts.recording_bytes;
    out->device_bytes = stage->facts.device_bytes;
    out->device_free_bytes = stage->facts.device_free_bytes;
    out->device_total_bytes = stage->facts.device_total_bytes;
    out->busy_ns = stage->busy_ns;
    out->wait_ns = stage->wait_ns;
    out->link_bytes = stage->link_bytes;
    out->kv_blocks_used = stage->kv_blocks_used;
    out->n_restarts = stage->worker.n_restarts;
}

static void fill_figures(struct engine *engine, struct engine_stats *out, int64_t now_ns)
{
    memcpy(out, &engine->figures,
           offsetof(struct engine_stats, stages)); /* the long part is filled below */
    out->backlog_s = -1;
    out->item_bytes = engine->options.compute == ENGINE_F32 ? 4 : 2;
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct scheduler_figures figures;
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        scheduler_figures(pipeline_scheduler(engine->pipelines[p]), now_ns, &figures);
        double backlog_s =
            (double)scheduler_backlog_ns(pipeline_scheduler(engine->pipelines[p])) * 1e-9;
        if (backlog_s >= 0 && (out->backlog_s < 0 || backlog_s < out->backlog_s))
            out->backlog_s = backlog_s;
        out->n_running += figures.n_running;
        out->n_waiting += figures.n_queued;
        out->n_in_flight += figures.n_in_flight;
        out->kv_blocks += figures.kv_blocks_total;
        out->kv_blocks_used += figures.kv_blocks_used;
        out->n_plans += figures.plans;
        out->n_plan_rows += figures.rows_computed;
        out->prefix_queries += figures.prefix_queries;
        out->prefix_hits += figures.prefix_hits;
        out->n_preempted += figures.preempted;
        out->busy_share += figures.busy_share / engine->n_pipelines;
        out->useful_ns += (uint64_t)figures.useful_ns;
        out->active_ns += (uint64_t)figures.active_ns;
        for (int k = 0; k < stages->n; k++) {
            fill_stage(&out->stages[out->n_stages++], engine, p, k);
            out->n_worker_restarts += (uint64_t)stages->list[k].worker.n_restarts;
        }
    }
    if (engine->codec) {
        out->n_codec_open = side_n_jobs(engine->codec);
        out->codec_busy_ns = side_busy_ns(engine->codec);
        out->codec = *side_memory(engine->codec);
        out->n_worker_restarts += (uint64_t)side_worker(engine->codec)->n_restarts;
    }
    engine_fill_remote(engine, out);
    out->token_age_ms = engine->working ? now_ns / 1000000 - engine->last_token_ms : 0;
}

/* The age of the last token is counted only while something could bring one. */
static void follow_work(struct engine *engine, int64_t now_ms)
{
    bool working = engine->n_open > 0;
    if (working && !engine->working)
        engine->last_token_ms = now_ms;
    engine->working = working;
}

void engine_publish(struct engine *engine, int64_t now_ns)
{
    const struct error *failure = find_failure(engine);
    bool ready = is_ready(engine);
    pthread_mutex_lock(&engine->lock);
    fill_figures(engine, engine->published, now_ns);
    engine->published->ready = ready && !failure;
    engine->published->stopping = engine->stopping;
    bool news = engine->ready != ready || (failure && !engine->failed);
    engine->ready = ready;
    if (failure && !engine->failed) {
        engine->failed = true;
        engine->failure = *failure;
    }
    if (engine->stop_deadline_ms != 0 && engine->n_promised == 0 && !engine->drained)
        news = engine->drained = true;
    if (news)
        pthread_cond_broadcast(&engine->changed);
    pthread_mutex_unlock(&engine->lock);
}

/* ---- the loop ---- */

static void run(struct engine *engine)
{
    int64_t now_ns = clock_monotonic_ns();
    engine_deal_places(engine, now_ns / 1000000);
    if (!engine->has_blocks && !find_failure(engine) &&
        engine_choose_blocks(engine, now_ns / 1000000)) {
        engine->has_blocks = true;
        engine_place_waiting(engine, now_ns);
    }
    for (int p = 0; p < engine->n_pipelines; p++) {
        pipeline_run(engine->pipelines[p], now_ns);
        engine_take_events(engine, engine->pipelines[p], now_ns);
    }
    if (engine->codec)
        side_run(engine->codec, now_ns / 1000000);
    if (engine->draws)
        side_run(engine->draws, now_ns / 1000000);
    struct error err;
    const struct error *failure = find_failure(engine);
    if (failure)
        engine_fail_all(engine, failure, now_ns / 1000000);
    if (engine->stop_deadline_ms != 0 && now_ns / 1000000 >= engine->stop_deadline_ms &&
        engine->n_open > 0) {
        error_set(&err, STATUS_CANCELED, "the server stops");
        engine_fail_all(engine, &err, now_ns / 1000000);
    }
    follow_work(engine, now_ns / 1000000);
    engine_publish(engine, now_ns);
}

static void stop_workers(struct engine *engine)
{
    int64_t deadline_ms = clock_monotonic_ms() + WORKER_STOP_WAIT_MS;
    struct worker *workers[ENGINE_PIPELINES_MAX * ENGINE_STAGES_MAX + 2];
    int n = 0;
    for (int p = 0; p < engine->n_pipelines; p++) {
        struct stages *stages = pipeline_stages(engine->pipelines[p]);
        for (int k = 0; k < stages->n; k++)
            workers[n++] = &stages->list[k].worker;
    }
    if (engine->codec)
        workers[n++] = side_worker(engine->codec);
    if (engine->draws)
        workers[n++] = side_worker(engine->draws);
    for (int i = 0; i < n; i++)
        worker_stop(workers[i]);
    for (int i = 0; i < n; i++) {
        int64_t left_ms = deadline_ms - clock_monotonic_ms();
        worker_join(workers[i], left_ms > 0 ? (int)left_ms : 0);
    }
}

void *engine_loop(void *context)
{
    struct engine *engine = context;
    run(engine); /* starts the workers */
    while (!engine->quit) {
        int n = list_items(engine);
        int wait_ms = engine->n_open > 0 || !engine->ready || engine->stop_deadline_ms
                          ? ENGINE_TICK_MS
                          : ENGINE_IDLE_TICK_MS;
        int n_ready = zmq_poll(engine->items, n, wait_ms);
        if (n_ready > 0) {
            take_messages(engine, engine->crew.router);
            if (engine->remote)
                take_messages(engine, remote_socket(engine->remote));
            take_ends(engine, n, clock_monotonic_ms());
            take_mails(engine);
        }
        run(engine);
    }
    struct error err;
    error_set(&err, STATUS_CANCELED, "the server stops");
    engine_fail_all(engine, &err, clock_monotonic_ms());
    stop_workers(engine);
    return NULL;
}
