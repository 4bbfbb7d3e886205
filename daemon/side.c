/*
 * side.c - a line of jobs before one worker.
 */
#include "daemon/side.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "daemon/limits.h"

struct entry {
    struct side_job job; /* job.body NULL: canceled after it was sent; the answer is dropped */
    bool sent;
    int n_tries;
    int64_t sent_ms;
};

struct side {
    struct side_options options;
    struct worker worker;
    bool loading, loaded, was_loaded, failed;
    int64_t asked_ms;
    struct error reason;
    struct entry entries[SIDE_JOBS_MAX]; /* [n] in order; sent ones first */
    int n;
    struct engine_codec_stats memory;
    uint64_t busy_ns;
};

enum status side_create(struct side **out, const struct side_options *options, struct error *err)
{
    *out = NULL;
    struct side *side = calloc(1, sizeof(*side));
    if (!side)
        return error_set(err, STATUS_NOMEM, "cannot allocate the line of a worker");
    side->options = *options;
    worker_init(&side->worker, options->crew, options->role,
                options->role == MGPT__ROLE__ROLE_CODEC ? "codec" : "draws",
                &options->crew->allowed);
    worker_take_device(&side->worker, 0);
    *out = side;
    return STATUS_OK;
}

void side_destroy(struct side *side)
{
    if (!side)
        return;
    worker_process_kill(&side->worker.process);
    free(side);
}

struct worker *side_worker(struct side *side)
{
    return &side->worker;
}

bool side_ready(const struct side *side)
{
    return side->loaded;
}

int side_n_jobs(const struct side *side)
{
    return side->n;
}

const struct error *side_failure(const struct side *side)
{
    return side->failed ? &side->reason : NULL;
}

const struct engine_codec_stats *side_memory(const struct side *side)
{
    return &side->memory;
}

uint64_t side_busy_ns(const struct side *side)
{
    return side->busy_ns;
}

enum status side_put(struct side *side, const struct side_job *job, struct error *err)
{
    if (side->n == SIDE_JOBS_MAX)
        return error_set(err, STATUS_FULL, "%d pictures wait already", SIDE_JOBS_MAX);
    side->entries[side->n++] = (struct entry){.job = *job};
    return STATUS_OK;
}

static void remove_entry(struct side *side, int i)
{
    side->n--;
    memmove(&side->entries[i], &side->entries[i + 1],
            (size_t)(side->n - i) * sizeof(side->entries[0]));
}

static int find_entry(const struct side *side, uint64_t id)
{
    for (int i = 0; i < side->n; i++)
        if (side->entries[i].job.id == id)
            return i;
    return -1;
}

void side_cancel(struct side *side, uint64_t id)
{
    int i = find_entry(side, id);
    if (i < 0)
        return;
    if (side->entries[i].sent)
        side->entries[i].job.body = NULL;
    else
        remove_entry(side, i);
}

static void fail_entry(struct side *side, int i, const struct error *err)
{
    struct side_job job = side->entries[i].job;
    remove_entry(side, i);
    if (job.body)
        side->options.hooks.on_failed(side->options.hooks.context, job.id, err);
}

void side_lose(struct side *side, int64_t now_ms, const char *why)
{
    char end[WORKER_PROCESS_END_BYTES];
    int pid = (int)side->worker.process.pid;
    worker_lose(&side->worker, now_ms, end);
    error_set(&side->reason, STATUS_LOST, "the %s worker (pid %d) is lost: %s: %s",
              side->worker.name, pid, why, end);
    log_warn("engine", "worker lost name=%s reason=\"%s\"", side->worker.name, side->reason.text);
    side->loading = side->loaded = false;
    if (!side->was_loaded)
        side->failed = true;
    for (int i = side->n - 1; i >= 0; i--) {
        struct entry *entry = &side->entries[i];
        if (!entry->sent)
            continue;
        entry->sent = false;
        if (!entry->job.body || entry->n_tries >= SIDE_TRIES_MAX)
            fail_entry(side, i, &side->reason);
    }
}

static void greet(struct side *side, int64_t now_ms)
{
    if (side->options.role != MGPT__ROLE__ROLE_CODEC) {
        side->loaded = side->was_loaded = true;
        return;
    }
    struct error err;
    Mgpt__Load load = MGPT__LOAD__INIT;
    load.epoch = (uint64_t)side->worker.life;
    load.compute = MGPT__COMPUTE__COMPUTE_F32;
    load.link_bind = "";
    load.pixels_max = (uint32_t)side->options.pixels_max;
    side->loading = true;
    side->asked_ms = now_ms;
    if (worker_send(&side->worker, MESSAGE_LOAD, &load.base, &err) != STATUS_OK)
        side_lose(side, now_ms, err.text);
}

static void check_deadlines(struct side *side, int64_t now_ms)
{
    if (side->worker.process.pid == 0)
        return;
    if (side->worker.peer.n_bytes == 0 && now_ms - side->worker.started_ms > WORKER_HELLO_WAIT_MS)
        side_lose(side, now_ms, "it did not say hello in time");
    else if (side->loading && now_ms - side->asked_ms > side->options.load_wait_ms)
        side_lose(side, now_ms, "it did not load in time");
    else if (side->n > 0 && side->entries[0].sent &&
             now_ms - side->entries[0].sent_ms > SIDE_WAIT_MS)
        side_lose(side, now_ms, "a picture passed its limit of time");
}

static void send_jobs(struct side *side, int64_t now_ms)
{
    for (int i = 0; side->loaded && i < side->n && i < SIDE_IN_FLIGHT_MAX; i++) {
        struct entry *entry = &side->entries[i];
        struct error err;
        if (entry->sent)
            continue;
        entry->sent = true;
        entry->n_tries++;
        entry->sent_ms = now_ms;
        enum status st = worker_send(&side->worker, entry->job.type, entry->job.body, &err);
        if (st == STATUS_LOST)
            side_lose(side, now_ms, err.text);
        else if (st != STATUS_OK)
            fail_entry(side, i--, &err);
    }
}

void side_run(struct side *side, int64_t now_ms)
{
    if (side->failed)
        return;
    check_deadlines(side, now_ms);
    struct error err;
    if (worker_may_start(&side->worker, now_ms) &&
        worker_start(&side->worker, now_ms, &err) != STATUS_OK) {
        log_error("engine", "%s", err.text);
        side->worker.restart_ms = now_ms + WORKER_RESTART_PAUSE_MAX_MS;
        side->failed = side->failed || !side->was_loaded;
        side->reason = err;
    }
    worker_tick(&side->worker, now_ms);
    send_jobs(side, now_ms);
}

static void on_failure(struct side *side, const Mgpt__Failure *failure, int64_t now_ms)
{
    enum status code = failure->status > STATUS_OK && failure->status <= STATUS_INTERNAL
                           ? (enum status)failure->status
                           : STATUS_INTERNAL;
    struct error err;
    error_set(&err, code, "%s", failure->text);
    int i = find_entry(side, failure->number);
    if (failure->type == MESSAGE_LOAD && !side->was_loaded) {
        side->failed = true;
        side->reason = err;
    } else if (failure->type == MESSAGE_LOAD || i < 0) {
        side_lose(side, now_ms, failure->text);
    } else {
        fail_entry(side, i, &err);
    }
}

static void on_answer(struct side *side, uint64_t id, const struct message *message, int64_t now_ms)
{
    int i = find_entry(side, id);
    if (i < 0) {
        side_lose(side, now_ms, "it answered what was not asked");
        return;
    }
    bool wanted = side->entries[i].job.body != NULL;
    remove_entry(side, i);
    for (int k = 0; k < side->n && side->entries[k].sent; k++)
        side->entries[k].sent_ms = now_ms; /* its turn begins now */
    if (wanted)
        side->options.hooks.on_answer(side->options.hooks.context, id, message);
}

bool side_on_message(struct side *side, const struct frame_peer *peer,
                     const struct message *message, int64_t now_ms)
{
    if (message->type == MESSAGE_HELLO &&
        worker_greet(&side->worker, peer, message->hello, now_ms)) {
        if (!side->loading && !side->loaded)
            greet(side, now_ms);
        return true;
    }
    if (!worker_is_peer(&side->worker, peer))
        return false;
    side->worker.heard_ms = now_ms;
    switch (message->type) {
    case MESSAGE_LOADED:
        side->loading = false;
        side->loaded = side->was_loaded = true;
        side->memory = (struct engine_codec_stats){
            message->loaded->weight_bytes, message->loaded->activation_bytes,
            message->loaded->workspace_bytes, message->loaded->device_bytes,
            message->loaded->resident_bytes};
        break;
    case MESSAGE_ENCODED:
        side->busy_ns += message->encoded->busy_ns;
        on_answer(side, message->encoded->id, message, now_ms);
        break;
    case MESSAGE_DECODED:
        side->busy_ns += message->decoded->busy_ns;
        on_answer(side, message->decoded->id, message, now_ms);
        break;
    case MESSAGE_DRAWN:
        on_answer(side, message->drawn->id, message, now_ms);
        break;
    case MESSAGE_FAILURE:
        on_failure(side, message->failure, now_ms);
        break;
    case MESSAGE_PONG:
        break;
    default:
        log_warn("engine", "unexpected message name=%s type=%s", side->worker.name,
                 message_type_name(message->type));
    }
    return true;
}
