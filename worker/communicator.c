/*
 * communicator.c - calls of NCCL, each followed until it is no longer in progress.
 */
#include "worker/communicator.h"

#include <nccl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/side_queue.h"

enum { RANKS = 2, PAUSE_NS = 20 * 1000 };

struct communicator {
    ncclComm_t comm;
    struct side_queue *queue; /* borrowed */
    int rank;
    pthread_t thread; /* of the abort */
    bool has_thread;
    int reason; /* why it has none */
};

_Static_assert(sizeof(ncclUniqueId) == COMMUNICATOR_ID_BYTES, "the offer carries NCCL's unique id");

static enum status fail(ncclComm_t comm, const char *call, ncclResult_t result, struct error *err)
{
    const char *more = ncclGetLastError(comm);
    bool has_more = more && *more;
    return error_set(err, STATUS_LOST, "NCCL: %s: %s%s%s", call, ncclGetErrorString(result),
                     has_more ? ": " : "", has_more ? more : "");
}

uint32_t communicator_version(struct error *err)
{
    int version = 0;
    ncclResult_t result = ncclGetVersion(&version);
    if (result == ncclSuccess && version > 0)
        return (uint32_t)version;
    error_set(err, STATUS_NOT_FOUND,
              "cannot load libnccl.so.2: install libnccl2 (or put it on LD_LIBRARY_PATH), or use "
              "--link zmq");
    return 0;
}

enum status communicator_make_offer(struct communicator_offer *out, struct error *err)
{
    ncclUniqueId id;
    memset(out, 0, sizeof(*out));
    out->version = communicator_version(err);
    if (out->version == 0)
        return STATUS_NOT_FOUND;
    ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess)
        return fail(NULL, "ncclGetUniqueId", result, err);
    memcpy(out->id, &id, sizeof(id));
    return STATUS_OK;
}

enum status communicator_open(struct communicator **out, const struct communicator_offer *offer,
                              int rank, struct side_queue *queue, struct error *err)
{
    *out = NULL;
    struct communicator *communicator = calloc(1, sizeof(*communicator));
    if (!communicator)
        return error_set(err, STATUS_NOMEM, "cannot allocate a communicator");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.maxCTAs = COMMUNICATOR_CTAS_MAX;
    ncclUniqueId id;
    memcpy(&id, offer->id, sizeof(id));
    communicator->queue = queue;
    communicator->rank = rank;
    ncclResult_t result = ncclCommInitRankConfig(&communicator->comm, RANKS, id, rank, &config);
    if (result != ncclSuccess && result != ncclInProgress) {
        enum status st = fail(NULL, "ncclCommInitRankConfig", result, err);
        communicator_abort(communicator, NULL);
        return st;
    }
    *out = communicator;
    return STATUS_OK;
}

enum status communicator_poll(struct communicator *communicator, struct error *err)
{
    ncclResult_t state = ncclSuccess;
    ncclResult_t result = ncclCommGetAsyncError(communicator->comm, &state);
    if (result == ncclSuccess && state == ncclInProgress)
        return STATUS_TIMEOUT;
    if (result == ncclSuccess && state == ncclSuccess)
        return STATUS_OK;
    return fail(communicator->comm, "the communicator", result == ncclSuccess ? state : result,
                err);
}

/* A transfer is in the queue only when its call is no longer in progress. */
static enum status settle(struct communicator *communicator, const char *call, ncclResult_t result,
                          struct error *err)
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int64_t end_ms = clock_monotonic_ms() + COMMUNICATOR_CALL_MS;
    if (result != ncclSuccess && result != ncclInProgress)
        return fail(communicator->comm, call, result, err);
    enum status st;
    while ((st = communicator_poll(communicator, err)) == STATUS_TIMEOUT) {
        if (clock_monotonic_ms() > end_ms)
            return error_set(err, STATUS_LOST, "NCCL: %s is in progress for more than %d ms", call,
                             COMMUNICATOR_CALL_MS);
        nanosleep(&pause, NULL);
    }
    return st;
}

enum status communicator_send(struct communicator *communicator, const void *rows, size_t n_bytes,
                              struct error *err)
{
    CHECK(communicator->rank == 0);
    ncclResult_t result = ncclSend(rows, n_bytes, ncclUint8, 1, communicator->comm,
                                   side_queue_handle(communicator->queue));
    return settle(communicator, "ncclSend", result, err);
}

enum status communicator_receive(struct communicator *communicator, void *rows, size_t n_bytes,
                                 struct error *err)
{
    CHECK(communicator->rank == 1);
    ncclResult_t result = ncclRecv(rows, n_bytes, ncclUint8, 0, communicator->comm,
                                   side_queue_handle(communicator->queue));
    return settle(communicator, "ncclRecv", result, err);
}

static void *run_abort(void *comm)
{
    ncclCommAbort(comm);
    return NULL;
}

void communicator_begin_abort(struct communicator *communicator)
{
    if (!communicator || !communicator->comm || communicator->has_thread)
        return;
    communicator->reason =
        pthread_create(&communicator->thread, NULL, run_abort, communicator->comm);
    communicator->has_thread = communicator->reason == 0;
}

static enum status join_abort(const struct communicator *communicator, struct error *err)
{
    struct timespec end;
    if (!communicator->has_thread)
        return error_set_errno(err, STATUS_INTERNAL, communicator->reason,
                               "cannot start a thread for an abort");
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += COMMUNICATOR_ABORT_MS / 1000;
    if (pthread_timedjoin_np(communicator->thread, NULL, &end) == 0)
        return STATUS_OK;
    pthread_detach(communicator->thread);
    return error_set(err, STATUS_INTERNAL, "ncclCommAbort did not end in %d ms",
                     COMMUNICATOR_ABORT_MS);
}

enum status communicator_abort(struct communicator *communicator, struct error *err)
{
    enum status st = STATUS_OK;
    communicator_begin_abort(communicator);
    if (communicator && communicator->comm)
        st = join_abort(communicator, err);
    free(communicator);
    return st;
}
