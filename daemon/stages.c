/*
 * stages.c - one look at each stage says what it needs next; nothing here waits.
 */
#include "daemon/stages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "daemon/cpu_share.h"
#include "daemon/limits.h"
#include "daemon/stages_remote.h"
#include "model/checkpoint_units.h"

/* local: how many of this machine's stages come before it. */
static void init_stage(struct stages *stages, int k, int *local)
{
    const struct stages_options *options = &stages->options;
    struct stage *stage = &stages->list[k];
    char name[WORKER_NAME_BYTES];
    cpu_set_t cpus = options->crew->allowed;
    bool is_remote = options->is_remote && options->is_remote[k];
    snprintf(name, sizeof(name), "stage %d.%d", options->pipeline, k);
    if (!is_remote)
        cpu_share(&cpus, &options->crew->allowed, *local, options->n_local);
    worker_init(&stage->worker, options->crew, MGPT__ROLE__ROLE_STAGE, name, &cpus);
    stage->worker.is_remote = is_remote;
    stage->first_unit = options->cut[k].first_unit;
    stage->last_unit = options->cut[k].last_unit;
    if (is_remote)
        return;
    worker_take_device(&stage->worker, (*local)++);
    stage->worker.shares_device =
        stages->n > 1 && strncmp(options->crew->device, "cuda:", strlen("cuda:")) == 0;
}

enum status stages_init(struct stages *out, const struct stages_options *options, struct error *err)
{
    memset(out, 0, sizeof(*out));
    CHECK(options->n_stages > 0);
    out->list = calloc((size_t)options->n_stages, sizeof(*out->list));
    if (!out->list)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d stages", options->n_stages);
    out->options = *options;
    out->n = options->n_stages;
    out->epoch = 1;
    int local = options->first_local;
    for (int k = 0; k < out->n; k++)
        init_stage(out, k, &local);
    out->options.cut = NULL;
    out->options.is_remote = NULL;
    return STATUS_OK;
}

void stages_fini(struct stages *stages)
{
    for (int k = 0; k < stages->n; k++)
        worker_process_kill(&stages->list[k].worker.process);
    free(stages->list);
    memset(stages, 0, sizeof(*stages));
}

void stages_begin_epoch(struct stages *stages, const char *why)
{
    stages->epoch++;
    stages->ready = false;
    for (int k = 0; k < stages->n; k++)
        stages->list[k].answered_number = 0;
    error_set(&stages->reason, STATUS_LOST, "%s", why);
    log_warn("engine", "pipeline forms anew pipeline=%d epoch=%llu reason=\"%s\"",
             stages->options.pipeline, (unsigned long long)stages->epoch, why);
}

/* The first load decides whether the engine can work at all. */
static void fail(struct stages *stages, enum status code, const char *text)
{
    if (stages->failed)
        return;
    stages->failed = true;
    stages->ready = false;
    error_set(&stages->reason, code, "%s", text);
}

/* Whether what stage k cannot do now it never could: one of our own, before the first success.
 * While others are waited for, a stage that was loaded once counts as one. */
static bool is_hopeless(const struct stages *stages, int k)
{
    const struct stage *stage = &stages->list[k];
    if (stage->worker.is_remote || stages->was_ready)
        return false;
    return !stage->was_loaded || stages_n_remote(stages) == 0;
}

void stages_forget(struct stages *stages, int k, int64_t now_ms, char end[WORKER_PROCESS_END_BYTES])
{
    struct stage *stage = &stages->list[k];
    worker_lose(&stage->worker, now_ms, end);
    stage->asked_room = stage->has_room = false;
    stage->loading = stage->loaded = false;
    stage->asked_epoch = stage->epoch = 0;
    stage->linked_life = stage->connecting_life = 0;
    stage->connect_ms = 0;
    stage->kv_blocks_used = 0;
    if (k > 0) {
        stages->list[k - 1].linked_life = stages->list[k - 1].connecting_life = 0;
        stages->list[k - 1].connect_ms = 0;
    }
}

void stages_lose(struct stages *stages, int k, int64_t now_ms, const char *why)
{
    struct worker *worker = &stages->list[k].worker;
    char end[WORKER_PROCESS_END_BYTES];
    char text[ERROR_TEXT_BYTES], place[128] = "";
    int pid = worker_pid(worker);
    if (worker->is_remote)
        snprintf(place, sizeof(place), " on %.48s, %s", worker->host, worker_place(worker));
    if (worker->is_remote && worker_is_alive(worker))
        remote_tell(&worker->peer, STATUS_LOST, why);
    stages_forget(stages, k, now_ms, end);
    snprintf(text, sizeof(text), "the worker of %s (pid %d%s) is lost: %.200s: %s", worker->name,
             pid, place, why, end);
    if (is_hopeless(stages, k))
        fail(stages, STATUS_LOST, text);
    stages_begin_epoch(stages, text);
}

/* Stage k cannot work with the others: a worker of another machine is sent away; one of our own is
 * the end before the first success, a loss later. */
static void refuse(struct stages *stages, int k, int64_t now_ms, enum status code, const char *text)
{
    if (stages->list[k].worker.is_remote)
        stages_dismiss(stages, k, now_ms, code, text);
    else if (is_hopeless(stages, k))
        fail(stages, code, text);
    else
        stages_lose(stages, k, now_ms, text);
}

/* A message that cannot be sent means that the worker is gone. */
static void send_or_lose(struct stages *stages, int k, enum message_type type,
                         const ProtobufCMessage *body, int64_t now_ms)
{
    struct error err;
    if (worker_send(&stages->list[k].worker, type, body, &err) != STATUS_OK)
        stages_lose(stages, k, now_ms, err.text);
}

/* ---- what carries activations ---- */

static bool has_hello(const struct stage *stage)
{
    return stage->worker.peer.n_bytes > 0;
}

/* 22803 is 2.28.3. */
static void format_nccl(char text[WORKER_NAME_BYTES], uint32_t version)
{
    snprintf(text, WORKER_NAME_BYTES, "%u.%u.%u", version / 10000, version / 100 % 100,
             version % 100);
}

/* Whether stage k may be linked by NCCL, as far as it is known by now; false: refused. */
static bool check_nccl(struct stages *stages, int k, int64_t now_ms)
{
    char text[ERROR_TEXT_BYTES], versions[2][WORKER_NAME_BYTES];
    const struct worker *worker = &stages->list[k].worker;
    if (stages->options.link == ENGINE_LINK_ZMQ || stages->n == 1)
        return true;
    if (stages->options.link == ENGINE_LINK_NCCL && worker->nccl_version == 0) {
        snprintf(text, sizeof(text),
                 "%s on %s has no NCCL: --link nccl needs --device cuda and libnccl.so.2; --link "
                 "zmq does without",
                 worker->name, worker->device);
        refuse(stages, k, now_ms, STATUS_UNSUPPORTED, text);
        return false;
    }
    for (int other = k - 1; other <= k + 1; other += 2) {
        if (other < 0 || other >= stages->n || !has_hello(&stages->list[other]))
            continue;
        const struct worker *next = &stages->list[other].worker;
        if (worker->nccl_version == next->nccl_version || worker->nccl_version == 0 ||
            next->nccl_version == 0)
            continue;
        format_nccl(versions[0], worker->nccl_version);
        format_nccl(versions[1], next->nccl_version);
        snprintf(text, sizeof(text),
                 "%s on host %s has NCCL %s, %s on host %s has %s: install the same NCCL for both, "
                 "or use --link zmq",
                 worker->name, worker->host, versions[0], next->name, next->host, versions[1]);
        refuse(stages, stages_victim(stages, k, other), now_ms, STATUS_INVALID, text);
        return false;
    }
    return true;
}

static Mgpt__LinkKind link_to_load(const struct stages *stages, int k)
{
    bool is_possible = stages->options.link != ENGINE_LINK_ZMQ && stages->n > 1 &&
                       stages->list[k].worker.nccl_version != 0;
    return is_possible ? MGPT__LINK_KIND__LINK_NCCL : MGPT__LINK_KIND__LINK_ZMQ;
}

static Mgpt__LinkKind link_to_next(const struct stages *stages, int k)
{
    bool both = stages->list[k].loaded_link == MGPT__LINK_KIND__LINK_NCCL &&
                stages->list[k + 1].loaded_link == MGPT__LINK_KIND__LINK_NCCL;
    return both ? MGPT__LINK_KIND__LINK_NCCL : MGPT__LINK_KIND__LINK_ZMQ;
}

const char *stages_link_name(const struct stages *stages, int k)
{
    if (k + 1 >= stages->n || stages->list[k].linked_life == 0)
        return "";
    return link_to_next(stages, k) == MGPT__LINK_KIND__LINK_NCCL ? "nccl" : "zmq";
}

/* Names a new endpoint for the stage to listen at. */
static void fill_load(Mgpt__Load *load, struct stages *stages, int k)
{
    struct stage *stage = &stages->list[k];
    const struct stages_options *options = &stages->options;
    stage->endpoint[0] = 0;
    if (k > 0)
        stages_choose_bind(stages, k, stage->endpoint);
    mgpt__load__init(load);
    load->epoch = stages->epoch;
    load->stage_index = (uint32_t)k;
    load->n_stages = (uint32_t)stages->n;
    load->first_unit = (uint32_t)stage->first_unit;
    load->last_unit = (uint32_t)stage->last_unit;
    load->compute = options->compute;
    load->kv_blocks = (uint32_t)options->kv_blocks;
    load->rows_max = (uint32_t)options->rows_max;
    load->link_bind = stage->endpoint;
    /* Longer than our own limit of a step, so that it is us who find the stage that hangs. */
    load->activation_ms = 2 * (uint32_t)options->step_wait_ms;
    load->first_number = 1;
    load->sequences_max = (uint32_t)options->sequences_max;
    load->outputs_max = (uint32_t)options->outputs_max;
    load->link = link_to_load(stages, k);
}

static void ask_room(struct stages *stages, int k, int64_t now_ms)
{
    Mgpt__Load load;
    Mgpt__AskRoom ask = MGPT__ASK_ROOM__INIT;
    if (!check_nccl(stages, k, now_ms))
        return;
    fill_load(&load, stages, k);
    load.kv_blocks = 1;
    ask.load = &load;
    stages->list[k].asked_room = true;
    stages->list[k].asked_ms = now_ms;
    send_or_lose(stages, k, MESSAGE_ASK_ROOM, &ask.base, now_ms);
}

bool stages_have_greeted(const struct stages *stages)
{
    for (int k = 0; k < stages->n; k++)
        if (!has_hello(&stages->list[k]))
            return false;
    return true;
}

bool stages_ask_rooms(struct stages *stages, int64_t now_ms)
{
    bool have_all = stages_have_greeted(stages);
    for (int k = 0; have_all && k < stages->n && !stages->failed; k++)
        if (!stages->list[k].asked_room)
            ask_room(stages, k, now_ms);
    for (int k = 0; k < stages->n; k++)
        have_all = have_all && stages->list[k].has_room;
    return have_all;
}

void stages_choose_blocks(struct stages *stages, int kv_blocks)
{
    CHECK(stages->options.kv_blocks == 0);
    stages->options.kv_blocks = kv_blocks;
}

void stages_give_up(struct stages *stages, const struct error *err)
{
    fail(stages, err->code, err->text);
}

static void send_load(struct stages *stages, int k, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    Mgpt__Load load;
    fill_load(&load, stages, k);
    stage->loaded_link = load.link;
    stage->loading = true;
    stage->asked_epoch = stages->epoch;
    stage->asked_ms = now_ms;
    send_or_lose(stages, k, MESSAGE_LOAD, &load.base, now_ms);
}

static void send_reset(struct stages *stages, int k, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    Mgpt__Reset reset = MGPT__RESET__INIT;
    reset.epoch = stages->epoch;
    reset.first_number = 1;
    stage->asked_epoch = stages->epoch;
    stage->asked_ms = now_ms;
    send_or_lose(stages, k, MESSAGE_RESET, &reset.base, now_ms);
}

static void send_connect(struct stages *stages, int k, int64_t now_ms)
{
    struct stage *next = &stages->list[k + 1];
    struct error err;
    if (stages_check_hop(stages, k, &err) != STATUS_OK) {
        refuse(stages, stages_victim(stages, k + 1, k), now_ms, err.code, err.text);
        return;
    }
    Mgpt__Connect connect = MGPT__CONNECT__INIT;
    connect.endpoint = next->endpoint;
    connect.key = next->link_key;
    connect.link = link_to_next(stages, k);
    stages->list[k].connecting_life = next->worker.life;
    stages->list[k].connecting_ms = now_ms;
    send_or_lose(stages, k, MESSAGE_CONNECT, &connect.base, now_ms);
}

static void start(struct stages *stages, int k, int64_t now_ms)
{
    struct error err;
    if (worker_start(&stages->list[k].worker, now_ms, &err) == STATUS_OK)
        return;
    if (is_hopeless(stages, k))
        fail(stages, err.code, err.text);
    stages->list[k].worker.restart_ms = now_ms + WORKER_RESTART_PAUSE_MAX_MS;
    log_error("engine", "%s", err.text);
}

static void check_deadlines(struct stages *stages, int k, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    const struct stages_options *options = &stages->options;
    if (!worker_is_alive(&stage->worker))
        return;
    if (stage->worker.peer.n_bytes == 0) {
        if (now_ms - stage->worker.started_ms > WORKER_HELLO_WAIT_MS)
            stages_lose(stages, k, now_ms, "it did not say hello in time");
    } else if (stage->loading) {
        if (now_ms - stage->asked_ms > options->load_wait_ms)
            stages_lose(stages, k, now_ms, "it did not load its units in time");
    } else if (stage->asked_room && !stage->has_room) {
        if (now_ms - stage->asked_ms > options->step_wait_ms)
            stages_lose(stages, k, now_ms, "it did not say what room it has in time");
    } else if (stage->asked_epoch != stage->epoch) {
        if (now_ms - stage->asked_ms > options->step_wait_ms)
            stages_lose(stages, k, now_ms, "it did not answer a reset in time");
    } else if (stage->connecting_life != 0) {
        if (now_ms - stage->connecting_ms > WORKER_CONNECT_WAIT_MS)
            stages_lose(stages, k, now_ms, "it did not reach the next stage in time");
    } else if (now_ms - stage->worker.heard_ms > options->step_wait_ms + WORKER_PING_MS) {
        stages_lose(stages, k, now_ms, "it answers no pings");
    }
}

static void advance_stage(struct stages *stages, int k, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    check_deadlines(stages, k, now_ms);
    if (!stage->worker.is_remote && worker_may_start(&stage->worker, now_ms))
        start(stages, k, now_ms);
    else if (has_hello(stage) && !stage->loading && !stage->loaded) {
        if (stages->options.kv_blocks > 0 && check_nccl(stages, k, now_ms))
            send_load(stages, k, now_ms);
    } else if (stage->loaded && stage->asked_epoch != stages->epoch)
        send_reset(stages, k, now_ms);
    if (worker_tick(&stage->worker, now_ms) != STATUS_OK)
        stages_lose(stages, k, now_ms, "its connection ended");
}

static bool is_formed(const struct stages *stages, int k)
{
    return stages->list[k].loaded && stages->list[k].epoch == stages->epoch;
}

void stages_advance(struct stages *stages, int64_t now_ms)
{
    for (int k = 0; k < stages->n && !stages->failed; k++)
        advance_stage(stages, k, now_ms);
    bool ready = !stages->failed;
    for (int k = 0; k + 1 < stages->n && !stages->failed; k++) {
        struct stage *stage = &stages->list[k];
        int next_life = stages->list[k + 1].worker.life;
        if (is_formed(stages, k) && is_formed(stages, k + 1) && stage->linked_life != next_life &&
            stage->connecting_life == 0 && now_ms >= stage->connect_ms)
            send_connect(stages, k, now_ms);
        ready = ready && stage->linked_life == next_life;
    }
    for (int k = 0; k < stages->n; k++)
        ready = ready && is_formed(stages, k);
    if (ready && !stages->ready)
        log_info("engine", "pipeline ready pipeline=%d stages=%d epoch=%llu link=%s",
                 stages->options.pipeline, stages->n, (unsigned long long)stages->epoch,
                 stages->n > 1 ? stages_link_name(stages, 0) : "none");
    stages->ready = ready;
    stages->was_ready = stages->was_ready || ready;
    if (ready)
        stages->notice.code = STATUS_OK;
}

static void copy_text(char *to, size_t to_bytes, const char *from)
{
    snprintf(to, to_bytes, "%s", from ? from : "");
}

/* The digest of the same units as this process reads them, once for each stage. */
static enum status expect_digest(struct stages *stages, int k, struct error *err)
{
    struct stage *stage = &stages->list[k];
    unsigned char digest[CHECKPOINT_DIGEST_BYTES];
    if (stage->expected_digest[0])
        return STATUS_OK;
    enum status st = checkpoint_digest(stages->options.checkpoint, stage->first_unit,
                                       stage->last_unit, digest, err);
    checkpoint_drop_pages(stages->options.checkpoint);
    if (st != STATUS_OK)
        return st;
    for (int i = 0; i < CHECKPOINT_DIGEST_BYTES; i++)
        snprintf(stage->expected_digest + 2 * i, 3, "%02x", digest[i]);
    return STATUS_OK;
}

/* One picture must not depend on where the cut lies. */
static bool check_fingerprint(struct stages *stages, int k, const Mgpt__Loaded *loaded,
                              int64_t now_ms)
{
    char text[ERROR_TEXT_BYTES];
    for (int other = 0; other < stages->n; other++) {
        const struct stage *stage = &stages->list[other];
        if (other == k || !stage->loaded ||
            strcmp(stage->facts.fingerprint, loaded->fingerprint) == 0)
            continue;
        snprintf(text, sizeof(text),
                 "%s (%s) and %s (%s) round differently: give all stages of a pipeline devices of "
                 "one kind (mgpt inspect device lists them)",
                 stage->worker.name, stage->facts.fingerprint, stages->list[k].worker.name,
                 loaded->fingerprint);
        int victim = stages_victim(stages, k, other);
        refuse(stages, victim, now_ms, STATUS_INVALID, text);
        if (victim == k)
            return false;
    }
    return true;
}

static void on_room(struct stages *stages, int k, const Mgpt__Room *room)
{
    struct stage *stage = &stages->list[k];
    stage->has_room = true;
    stage->room = (struct kv_size_stage){.is_device = strcmp(stage->worker.device, "cpu") != 0,
                                         .free_bytes = room->free_bytes,
                                         .total_bytes = room->total_bytes,
                                         .need_bytes = room->weight_bytes + room->activation_bytes +
                                                       room->recording_bytes,
                                         .block_bytes = room->block_bytes};
    const char *address = stages_machine(stages, k); /* hosts of two networks may share a name */
    snprintf(stage->room.memory, sizeof(stage->room.memory), "%s %s",
             address[0] ? address : stage->worker.host, stage->worker.device);
    log_debug("engine",
              "room name=\"%s\" memory=\"%s\" free_bytes=%llu total_bytes=%llu need_bytes=%llu "
              "block_bytes=%llu",
              stage->worker.name, stage->room.memory, (unsigned long long)room->free_bytes,
              (unsigned long long)room->total_bytes, (unsigned long long)stage->room.need_bytes,
              (unsigned long long)room->block_bytes);
}

static void on_loaded(struct stages *stages, int k, const Mgpt__Loaded *loaded, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    struct stage_facts *facts = &stage->facts;
    struct error err;
    if (!stage->loading) {
        stages_lose(stages, k, now_ms, "it sent Loaded without being asked");
        return;
    }
    if (expect_digest(stages, k, &err) != STATUS_OK) {
        stages_lose(stages, k, now_ms, err.text);
        return;
    }
    if (strcmp(loaded->digest, stage->expected_digest) != 0) {
        error_set(&err, STATUS_INVALID,
                  "%s has another checkpoint than mgptd (digests differ): give --model the same "
                  "files on both machines",
                  stage->worker.name);
        refuse(stages, k, now_ms, err.code, err.text);
        return;
    }
    if (!check_fingerprint(stages, k, loaded, now_ms))
        return;
    stage->loading = false;
    stage->loaded = stage->was_loaded = true;
    stage->epoch = loaded->epoch;
    copy_text(facts->units, sizeof(facts->units), loaded->units);
    copy_text(facts->digest, sizeof(facts->digest), loaded->digest);
    copy_text(facts->fingerprint, sizeof(facts->fingerprint), loaded->fingerprint);
    facts->weight_bytes = loaded->weight_bytes;
    facts->kv_bytes = loaded->kv_bytes;
    facts->activation_bytes = loaded->activation_bytes;
    facts->resident_bytes = loaded->resident_bytes;
    facts->file_bytes = loaded->file_bytes;
    facts->workspace_bytes = loaded->workspace_bytes;
    facts->recording_bytes = loaded->recording_bytes;
    facts->device_bytes = loaded->device_bytes;
    facts->device_free_bytes = loaded->device_free_bytes;
    facts->device_total_bytes = loaded->device_total_bytes;
    if (loaded->link_endpoint && loaded->link_endpoint[0])
        stages_take_endpoint(stages, k, loaded->link_endpoint);
    copy_text(stage->link_key, sizeof(stage->link_key), loaded->link_key);
    log_debug("engine", "stage loaded name=\"%s\" units=%s weight_bytes=%llu ms=%lld",
              stage->worker.name, facts->units, (unsigned long long)facts->weight_bytes,
              (long long)(now_ms - stage->asked_ms));
}

/* A link that stood; both its stages may be sound. What its stage says comes in order: an earlier
 * epoch means that the present one is not formed yet. */
static void on_lost_link(struct stages *stages, int k, const Mgpt__Failure *failure)
{
    struct stage *stage = &stages->list[k];
    if (stage->linked_life == 0)
        return; /* it went with the next stage */
    stage->linked_life = 0;
    if (failure->epoch == stages->epoch)
        stages_begin_epoch(stages, failure->text);
}

static enum status status_of(const Mgpt__Failure *failure)
{
    return failure->status > STATUS_OK && failure->status <= STATUS_INTERNAL
               ? (enum status)failure->status
               : STATUS_INTERNAL;
}

/* A stage cannot reach the next one. Between machines that is for an administrator to mend (a
 * firewall, an address), while both try again. */
static void on_failed_connect(struct stages *stages, int k, const Mgpt__Failure *failure,
                              int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    const struct stage *next = &stages->list[k + 1];
    bool is_nccl = link_to_next(stages, k) == MGPT__LINK_KIND__LINK_NCCL;
    if (stage->worker.is_remote || next->worker.is_remote) {
        stage->connecting_life = 0;
        stage->connect_ms = now_ms + WORKER_CONNECT_PAUSE_MS;
        error_set(&stages->notice, STATUS_LOST,
                  "%s at %s does not reach %s at %s: %.200s; is that port open between the "
                  "machines?%s",
                  stage->worker.name, worker_place(&stage->worker), next->worker.name,
                  next->endpoint, failure->text, is_nccl ? " (--link zmq does without NCCL)" : "");
        log_warn("engine", "%s", stages->notice.text);
    } else if (is_hopeless(stages, k) && !stages->was_ready) {
        char text[ERROR_TEXT_BYTES];
        snprintf(text, sizeof(text), "%s: %.300s%s", stage->worker.name, failure->text,
                 is_nccl ? " (--link zmq does without NCCL)" : "");
        fail(stages, STATUS_LOST, text);
    } else {
        stages_lose(stages, k, now_ms, failure->text);
    }
}

static void on_failure(struct stages *stages, int k, const Mgpt__Failure *failure, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    if (failure->type == MESSAGE_STEP_PLAN) {
        if (failure->epoch == stages->epoch)
            stages_begin_epoch(stages, failure->text);
        return; /* of an epoch that is over */
    }
    if (failure->type == MESSAGE_CONNECT && failure->epoch != 0) {
        on_lost_link(stages, k, failure);
        return;
    }
    if (failure->type == MESSAGE_CONNECT && stage->connecting_life == 0)
        return; /* the stage it should have reached was lost meanwhile */
    if (failure->type == MESSAGE_CONNECT) {
        on_failed_connect(stages, k, failure, now_ms);
        return;
    }
    if ((failure->type == MESSAGE_LOAD || failure->type == MESSAGE_ASK_ROOM) &&
        (is_hopeless(stages, k) || stages->list[k].worker.is_remote)) {
        char text[ERROR_TEXT_BYTES];
        snprintf(text, sizeof(text), "%s: %.440s", stage->worker.name, failure->text);
        refuse(stages, k, now_ms, status_of(failure), text);
        return;
    }
    stages_lose(stages, k, now_ms, failure->text);
}

void stages_on_message(struct stages *stages, int k, const struct message *message, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    stage->worker.heard_ms = now_ms;
    switch (message->type) {
    case MESSAGE_ROOM:
        on_room(stages, k, message->room);
        break;
    case MESSAGE_LOADED:
        on_loaded(stages, k, message->loaded, now_ms);
        break;
    case MESSAGE_READY:
        stage->epoch = message->ready->epoch;
        break;
    case MESSAGE_CONNECTED:
        stage->linked_life = stage->connecting_life;
        stage->connecting_life = 0;
        break;
    case MESSAGE_FAILURE:
        on_failure(stages, k, message->failure, now_ms);
        break;
    case MESSAGE_PONG:
    case MESSAGE_HELLO: /* sent again after a silence */
        break;
    default:
        log_warn("engine", "unexpected message name=\"%s\" type=%s", stage->worker.name,
                 message_type_name(message->type));
    }
}
