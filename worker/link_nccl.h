/*
 * link_nccl.h - a hop whose rows stay on devices: NCCL carries them, ZeroMQ (link_zmq.h) the frames
 * that say what comes.
 *
 * In:      rows in device memory.
 * Out:     rows in device memory of the next stage.
 * Owns:    a link of link_zmq, a communicator of two ranks, a side queue, LINK_NCCL_SLOTS places
 * for rows; all of this hop alone, so that the end of one hop touches no other. Threads: the
 * compute thread.
 *
 * Sending: the rows are copied into a slot, queued behind the stream's kernels in the side queue,
 * and announced by a frame. Only then does the receiving end queue its part, so no device waits for
 * a peer that has not begun; it looks at a mark until the rows are there and hands them over where
 * they lie. Both ends go on computing meanwhile.
 *
 * Forming: the greeting offers a unique id; both ends open the communicator, rows of a pattern
 * pass, and only then the greeting is answered. A greeting without an offer makes it a link of
 * frames alone. Loss: whoever sees it (an error of NCCL, rows that do not come in
 * LINK_NCCL_ROWS_MS, an ordinal out of order) aborts its end and tells the other; announced plans
 * then fail, each with one frame. The listening end waits for the next greeting.
 */
#ifndef MGPT_WORKER_LINK_NCCL_H
#define MGPT_WORKER_LINK_NCCL_H

#include "worker/link.h"

enum {
    LINK_NCCL_SLOTS = 4, /* payloads on their way at one end; side_queue.h has a mark for each */
    LINK_NCCL_ROWS_MS = 30 * 1000, /* from the announcement to the rows */
    LINK_NCCL_FORM_MS = 30 * 1000, /* from the offer to rows that passed */
    LINK_NCCL_SPIN_US = 2000       /* how long an end looks for rows without a pause */
};

struct link_nccl_options {
    struct stream *stream; /* with a CUDA device; borrowed */
    size_t rows_bytes_max; /* of a payload */
    int rows_ms;           /* 0: LINK_NCCL_ROWS_MS */
};

/* Device memory that one end takes. */
size_t link_nccl_bytes(const struct link_nccl_options *options);

/*
 * Either end, around a link of link_zmq, which is taken also on error.
 * STATUS_NOMEM, STATUS_UNSUPPORTED: no device.  On error *out is NULL.
 */
enum status link_nccl_listen(struct link **out, struct link *take_frames,
                             const struct link_nccl_options *options, struct error *err);
enum status link_nccl_connect(struct link **out, struct link *take_frames,
                              const struct link_nccl_options *options, struct error *err);

#endif
