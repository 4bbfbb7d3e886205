/*
 * stages_remote.c - a machine is known by the address from which its worker came.
 */
#include "daemon/stages_remote.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"

bool stages_want_worker(const struct stages *stages, int k, int64_t now_ms)
{
    const struct worker *worker = &stages->list[k].worker;
    return !stages->failed && worker->is_remote && worker_may_start(worker, now_ms);
}

void stages_admit(struct stages *stages, int k, const struct remote_worker *worker, int64_t now_ms)
{
    struct stage *stage = &stages->list[k];
    CHECK(stages_want_worker(stages, k, now_ms));
    worker_admit(&stage->worker, worker, now_ms);
    log_info("engine", "worker has a place name=\"%s\" address=%s host=%s pid=%d device=%s",
             stage->worker.name, worker->peer.address, worker->host, worker->pid, worker->device);
}

int stages_n_remote(const struct stages *stages)
{
    int n = 0;
    for (int k = 0; k < stages->n; k++)
        n += stages->list[k].worker.is_remote;
    return n;
}

int stages_n_missing(const struct stages *stages)
{
    int n = 0;
    for (int k = 0; k < stages->n; k++)
        n += stages->list[k].worker.is_remote && !worker_is_alive(&stages->list[k].worker);
    return n;
}

void stages_dismiss(struct stages *stages, int k, int64_t now_ms, enum status code,
                    const char *text)
{
    struct stage *stage = &stages->list[k];
    struct worker *worker = &stage->worker;
    struct frame_peer peer = worker->peer;
    bool was_loaded = stage->loaded;
    int n_quick_ends = worker->n_quick_ends;
    CHECK(worker->is_remote);
    error_set(&stages->notice, code, "the last worker for %s, from %s, was refused: %s",
              worker->name, peer.address, text);
    log_warn("engine", "worker refused name=\"%s\" address=%s host=%s reason=\"%s\"", worker->name,
             peer.address, worker->host, text);
    remote_tell(&peer, code, text);
    stages_forget(stages, k, now_ms, NULL);
    /* The next one has done no harm yet: no pause for it. */
    worker->n_quick_ends = n_quick_ends;
    worker->restart_ms = now_ms;
    if (was_loaded)
        stages_begin_epoch(stages, text);
}

int stages_victim(const struct stages *stages, int k, int other)
{
    return !stages->list[k].worker.is_remote && stages->list[other].worker.is_remote ? other : k;
}

const char *stages_machine(const struct stages *stages, int k)
{
    const struct worker *worker = &stages->list[k].worker;
    return !worker->is_remote || endpoint_is_loopback(worker->peer.address) ? ""
                                                                            : worker->peer.address;
}

void stages_choose_bind(const struct stages *stages, int k, char endpoint[ENDPOINT_BYTES])
{
    const struct stages_options *options = &stages->options;
    const struct worker *worker = &stages->list[k].worker;
    char name[PRIVATE_FOLDER_NAME_BYTES];
    CHECK(k > 0);
    if (worker->is_remote) {
        endpoint_format(endpoint, worker->peer.address, "*");
    } else if (stages->list[k - 1].worker.is_remote) {
        endpoint_format(endpoint, options->link_host, "*");
    } else {
        snprintf(name, sizeof(name), "link%d", ++options->crew->n_lives);
        private_folder_endpoint(&options->crew->folder, endpoint, name);
    }
}

void stages_take_endpoint(struct stages *stages, int k, const char *told)
{
    struct stage *stage = &stages->list[k];
    char host[ENDPOINT_HOST_BYTES];
    if (strncmp(told, "tcp://", strlen("tcp://")) != 0 || !endpoint_host(host, told)) {
        snprintf(stage->endpoint, sizeof(stage->endpoint), "%s", told);
        return;
    }
    if (endpoint_is_wildcard(host))
        snprintf(host, sizeof(host), "%s",
                 stage->worker.is_remote ? stage->worker.peer.address : stages->options.link_host);
    endpoint_format(stage->endpoint, host, endpoint_port(told));
}

enum status stages_check_hop(const struct stages *stages, int k, struct error *err)
{
    const struct stage *next = &stages->list[k + 1];
    char host[ENDPOINT_HOST_BYTES];
    bool is_tcp = strncmp(next->endpoint, "tcp://", strlen("tcp://")) == 0 &&
                  endpoint_host(host, next->endpoint);
    if (strcmp(stages_machine(stages, k), stages_machine(stages, k + 1)) == 0 ||
        (is_tcp && !endpoint_is_loopback(host)))
        return STATUS_OK;
    return error_set(err, STATUS_INVALID,
                     "%s at %s takes activations at %s, which %s at %s cannot reach: give %s an "
                     "address of its machine",
                     next->worker.name, worker_place(&next->worker), next->endpoint,
                     stages->list[k].worker.name, worker_place(&stages->list[k].worker),
                     next->worker.is_remote ? "its mgpt-worker --link tcp://ADDRESS:* with"
                                            : "mgptd --link-host with");
}
