/*
 * worker.c - starts, greets, pings and ends one worker.
 */
#include "daemon/worker.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "daemon/limits.h"

void worker_init(struct worker *worker, struct crew *crew, Mgpt__Role role, const char *name,
                 const cpu_set_t *cpus)
{
    memset(worker, 0, sizeof(*worker));
    worker->crew = crew;
    worker->role = role;
    worker->cpus = *cpus;
    worker->process.life_fd = -1;
    snprintf(worker->name, sizeof(worker->name), "%s", name);
    snprintf(worker->device, sizeof(worker->device), "%s", crew->device);
}

void worker_take_device(struct worker *worker, int index)
{
    if (strcmp(worker->crew->device, "cuda") == 0)
        snprintf(worker->device, sizeof(worker->device), "cuda:%d", index);
}

bool worker_is_alive(const struct worker *worker)
{
    return worker->is_remote ? worker->peer.n_bytes > 0 : worker->process.pid != 0;
}

int worker_pid(const struct worker *worker)
{
    return worker->is_remote ? worker->remote_pid : (int)worker->process.pid;
}

const char *worker_place(const struct worker *worker)
{
    return worker->is_remote ? worker->peer.address : "this machine";
}

bool worker_may_start(const struct worker *worker, int64_t now_ms)
{
    return !worker_is_alive(worker) && now_ms >= worker->restart_ms;
}

static void begin_life(struct worker *worker, int64_t now_ms)
{
    worker->n_restarts += worker->life > 0;
    worker->life++;
    worker->started_ms = worker->heard_ms = worker->pinged_ms = now_ms;
}

void worker_admit(struct worker *worker, const struct remote_worker *from, int64_t now_ms)
{
    begin_life(worker, now_ms);
    worker->peer = from->peer;
    worker->remote_pid = from->pid;
    worker->nccl_version = from->nccl_version;
    snprintf(worker->host, sizeof(worker->host), "%s", from->host);
    snprintf(worker->device, sizeof(worker->device), "%.31s", from->device);
}

enum status worker_start(struct worker *worker, int64_t now_ms, struct error *err)
{
    const struct crew *crew = worker->crew;
    const char *arguments[WORKER_PROCESS_ARGUMENTS_MAX];
    char threads[16];
    int n = 0;
    arguments[n++] = "mgpt-worker";
    arguments[n++] = "--connect";
    arguments[n++] = crew->endpoint;
    arguments[n++] = "--model";
    arguments[n++] = crew->model_dir;
    arguments[n++] = "--role";
    arguments[n++] = worker->role == MGPT__ROLE__ROLE_CODEC ? "codec" : "stage";
    arguments[n++] = "--device";
    arguments[n++] = worker->device;
    arguments[n++] = "--log-level";
    arguments[n++] = crew->log_level;
    if (crew->vq_dir && worker->role == MGPT__ROLE__ROLE_CODEC) {
        arguments[n++] = "--vq";
        arguments[n++] = crew->vq_dir;
    }
    if (worker->shares_device)
        arguments[n++] = "--shares-device";
    if (crew->threads > 0) {
        snprintf(threads, sizeof(threads), "%d", crew->threads);
        arguments[n++] = "--threads";
        arguments[n++] = threads;
    }
    if (crew->no_confine)
        arguments[n++] = "--no-confine";
    arguments[n] = NULL;
    CHECK(n < WORKER_PROCESS_ARGUMENTS_MAX);
    enum status st =
        worker_process_start(&worker->process, crew->worker_path, arguments, &worker->cpus, err);
    if (st != STATUS_OK)
        return error_wrap(err, st, "cannot start the worker of %s", worker->name);
    worker->peer.n_bytes = 0;
    begin_life(worker, now_ms);
    log_debug("worker", "started name=\"%s\" pid=%d", worker->name, (int)worker->process.pid);
    return STATUS_OK;
}

bool worker_greet(struct worker *worker, const struct frame_peer *peer, const Mgpt__Hello *hello,
                  int64_t now_ms)
{
    if (worker->process.pid == 0 || peer->socket != worker->crew->router ||
        hello->pid != (uint64_t)worker->process.pid || hello->role != worker->role)
        return false;
    worker->peer = *peer;
    worker->heard_ms = now_ms;
    worker->nccl_version = hello->nccl_version;
    snprintf(worker->host, sizeof(worker->host), "%s", hello->host);
    return true;
}

bool worker_is_peer(const struct worker *worker, const struct frame_peer *peer)
{
    return worker_is_alive(worker) && worker->peer.n_bytes > 0 &&
           frame_peer_equals(&worker->peer, peer);
}

enum status worker_send(struct worker *worker, enum message_type type, const ProtobufCMessage *body,
                        struct error *err)
{
    if (!worker_is_alive(worker) || worker->peer.n_bytes == 0)
        return error_set(err, STATUS_LOST, "%s is not connected", worker->name);
    enum status st = message_send(worker->peer.socket, &worker->peer, type, body, 0, err);
    if (st == STATUS_FULL || st == STATUS_TIMEOUT)
        st = STATUS_LOST; /* it takes nothing any more */
    if (st != STATUS_OK)
        return error_wrap(err, st, "cannot send %s to %s", message_type_name(type), worker->name);
    return STATUS_OK;
}

enum status worker_tick(struct worker *worker, int64_t now_ms)
{
    if (!worker_is_alive(worker) || worker->peer.n_bytes == 0 ||
        now_ms - worker->pinged_ms < WORKER_PING_MS)
        return STATUS_OK;
    worker->pinged_ms = now_ms;
    Mgpt__Ping ping = MGPT__PING__INIT;
    ping.value = (uint64_t)now_ms;
    /* Of a process of our own the end is seen by itself, and the deadlines see the rest. */
    enum status st = worker_send(worker, MESSAGE_PING, &ping.base, NULL);
    return worker->is_remote ? st : STATUS_OK;
}

static int64_t pause_ms(int n_quick_ends)
{
    int64_t pause = n_quick_ends <= 1 ? 0
                                      : (int64_t)WORKER_RESTART_PAUSE_MS
                                            << (n_quick_ends < 12 ? n_quick_ends - 2 : 10);
    return pause < WORKER_RESTART_PAUSE_MAX_MS ? pause : WORKER_RESTART_PAUSE_MAX_MS;
}

void worker_lose(struct worker *worker, int64_t now_ms, char end[WORKER_PROCESS_END_BYTES])
{
    char text[WORKER_PROCESS_END_BYTES];
    if (worker->is_remote) {
        worker->remote_pid = 0;
        snprintf(text, sizeof(text), "its place is free");
    } else if (worker_process_reap(&worker->process, 0, text) != STATUS_OK) {
        worker_process_kill(&worker->process);
        snprintf(text, sizeof(text), "killed by its daemon");
    }
    if (end)
        memcpy(end, text, sizeof(text));
    worker->peer.n_bytes = 0;
    worker->n_quick_ends =
        now_ms - worker->started_ms > WORKER_STEADY_MS ? 1 : worker->n_quick_ends + 1;
    worker->restart_ms = now_ms + pause_ms(worker->n_quick_ends);
}

void worker_stop(struct worker *worker)
{
    if (worker->is_remote)
        return;
    Mgpt__Stop stop = MGPT__STOP__INIT;
    if (worker->process.pid != 0 &&
        worker_send(worker, MESSAGE_STOP, &stop.base, NULL) != STATUS_OK)
        worker_process_kill(&worker->process);
}

void worker_join(struct worker *worker, int wait_ms)
{
    char end[WORKER_PROCESS_END_BYTES];
    if (worker->is_remote)
        return;
    if (worker_process_reap(&worker->process, wait_ms, end) != STATUS_OK)
        worker_process_kill(&worker->process);
    worker->peer.n_bytes = 0;
}
