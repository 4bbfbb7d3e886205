/*
 * communicator_absent.c - in the place of communicator.c where the build has no NCCL.
 */
#include "worker/communicator.h"

#include "base/check.h"

static enum status refuse(struct error *err)
{
    return error_set(
        err, STATUS_UNSUPPORTED,
        "this build has no NCCL: use --link zmq, or install libnccl-dev and build anew");
}

uint32_t communicator_version(struct error *err)
{
    refuse(err);
    return 0;
}

enum status communicator_make_offer(struct communicator_offer *out, struct error *err)
{
    (void)out;
    return refuse(err);
}

enum status communicator_open(struct communicator **out, const struct communicator_offer *offer,
                              int rank, struct side_queue *queue, struct error *err)
{
    (void)offer;
    (void)rank;
    (void)queue;
    *out = NULL;
    return refuse(err);
}

enum status communicator_poll(struct communicator *communicator, struct error *err)
{
    CHECK(!communicator);
    return refuse(err);
}

enum status communicator_send(struct communicator *communicator, const void *rows, size_t n_bytes,
                              struct error *err)
{
    (void)rows;
    (void)n_bytes;
    CHECK(!communicator);
    return refuse(err);
}

enum status communicator_receive(struct communicator *communicator, void *rows, size_t n_bytes,
                                 struct error *err)
{
    (void)rows;
    (void)n_bytes;
    CHECK(!communicator);
    return refuse(err);
}

void communicator_begin_abort(struct communicator *communicator)
{
    CHECK(!communicator);
}

enum status communicator_abort(struct communicator *communicator, struct error *err)
{
    (void)err;
    CHECK(!communicator);
    return STATUS_OK;
}
