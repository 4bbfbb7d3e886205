/*
 * communicator.h - two ranks of NCCL that do not block: rank 0 sends rows, rank 1 receives them.
 *
 * In:      an offer (made by rank 0, brought to rank 1 by whoever has a way), device memory.
 * Out:     transfers in a side queue of the device, in order.
 * Owns:    the communicator. Its transfers end, or it is aborted, before their memory is freed.
 * Threads: the compute thread; an abort has a thread of its own, so that it can be waited for with
 *          a limit.
 *
 * communicator_absent.c stands in builds without NCCL. The library is loaded when it is first asked
 * for (nccl_library.c): 200 MB that a worker on the CPU shall not carry.
 */
#ifndef MGPT_WORKER_COMMUNICATOR_H
#define MGPT_WORKER_COMMUNICATOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct side_queue;
struct communicator;

enum {
    COMMUNICATOR_ID_BYTES = 128,       /* of NCCL's unique id */
    COMMUNICATOR_CALL_MS = 10 * 1000,  /* a call that stays in progress for longer is lost */
    COMMUNICATOR_ABORT_MS = 10 * 1000, /* an abort that takes longer is given up */
    COMMUNICATOR_CTAS_MAX = 4 /* thread blocks a transfer may take from the kernels beside it */
};

/* Sent as it lies in memory, little endian. */
struct communicator_offer {
    uint32_t version;
    uint32_t zero;
    unsigned char id[COMMUNICATOR_ID_BYTES];
};

/* As NCCL counts: 22803 is 2.28.3. 0: this build, or this machine, has none; the text says what to
 * do. */
uint32_t communicator_version(struct error *err);

enum status communicator_make_offer(struct communicator_offer *out, struct error *err);

/*
 * Begins to form; communicator_poll() says when it stands. On the CUDA device that the thread uses.
 *
 * queue: borrowed until the communicator ended.  On error *out is NULL.
 */
enum status communicator_open(struct communicator **out, const struct communicator_offer *offer,
                              int rank, struct side_queue *queue, struct error *err);

/* STATUS_OK: stands, nothing wrong so far.  STATUS_TIMEOUT: it forms.  STATUS_LOST: of no use any
 * more, with NCCL's words. */
enum status communicator_poll(struct communicator *communicator, struct error *err);

/* Queue one transfer on a communicator that stands. STATUS_LOST also after COMMUNICATOR_CALL_MS. */
enum status communicator_send(struct communicator *communicator, const void *rows, size_t n_bytes,
                              struct error *err);
enum status communicator_receive(struct communicator *communicator, void *rows, size_t n_bytes,
                                 struct error *err);

/*
 * Asks it to end and returns. Of several communicators of one device all are asked before one is
 * waited for: NCCL frees memory, and that waits for whatever runs on the device. NULL is fine.
 */
void communicator_begin_abort(struct communicator *communicator);

/*
 * Ends it, and whatever it is doing. NULL is fine.
 *
 * STATUS_INTERNAL: that took longer than COMMUNICATOR_ABORT_MS. It goes on behind our back, so
 * queue and memory of its transfers must never be freed.
 */
enum status communicator_abort(struct communicator *communicator, struct error *err);

#endif
