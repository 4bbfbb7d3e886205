/*
 * crew.c - opens and closes the shared things.
 */
#include "daemon/crew.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "proto/frame.h"

static enum status find_worker(struct crew *crew, const char *worker_path, struct error *err)
{
    if (!worker_path)
        return worker_process_find(crew->worker_path, err);
    if (strlen(worker_path) >= sizeof(crew->worker_path))
        return error_set(err, STATUS_INVALID, "the path of the worker program is too long");
    strcpy(crew->worker_path, worker_path);
    if (access(worker_path, X_OK) != 0)
        return error_set_errno(err, STATUS_NOT_FOUND, errno, "cannot execute '%s'", worker_path);
    return STATUS_OK;
}

static enum status open_router(struct crew *crew, struct error *err)
{
    crew->context = zmq_ctx_new();
    if (crew->context)
        crew->router = zmq_socket(crew->context, ZMQ_ROUTER);
    if (!crew->router)
        return error_set(err, STATUS_IO, "cannot make the control socket: %s",
                         zmq_strerror(zmq_errno()));
    enum status st = frame_configure_socket(crew->router, err);
    if (st != STATUS_OK)
        return st;
    private_folder_endpoint(&crew->folder, crew->endpoint, "control");
    if (zmq_bind(crew->router, crew->endpoint) != 0)
        return error_set(err, STATUS_IO, "cannot bind '%s': %s", crew->endpoint,
                         zmq_strerror(zmq_errno()));
    return STATUS_OK;
}

enum status crew_open(struct crew *out, const char *worker_path, struct error *err)
{
    memset(out, 0, sizeof(*out));
    enum status st = find_worker(out, worker_path, err);
    if (st == STATUS_OK)
        st = private_folder_create(&out->folder, err);
    if (st == STATUS_OK)
        st = open_router(out, err);
    if (st == STATUS_OK && sched_getaffinity(0, sizeof(out->allowed), &out->allowed) != 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot ask for the cores of this process");
    if (st != STATUS_OK)
        crew_close(out);
    return st;
}

void crew_close(struct crew *crew)
{
    if (crew->router) {
        int no_linger = 0; /* workers are gone; nothing is left to deliver */
        zmq_setsockopt(crew->router, ZMQ_LINGER, &no_linger, sizeof(no_linger));
        zmq_close(crew->router);
    }
    if (crew->context)
        zmq_ctx_term(crew->context);
    crew->router = crew->context = NULL;
    private_folder_remove(&crew->folder);
}
