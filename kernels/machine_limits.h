/*
 * machine_limits.h - what this machine can do at best: bytes read a second and products a second,
 * on a stream's threads.
 *
 * Kernels are measured against these, in the same run: no step can take less than
 * max(bytes read / read bandwidth, operations / dense peak).
 */
#ifndef MGPT_KERNELS_MACHINE_LIMITS_H
#define MGPT_KERNELS_MACHINE_LIMITS_H

#include "kernels/stream.h"

struct machine_limits {
    double read_bytes_s; /* all threads together, each reading its part of a buffer far larger than
                            the caches, in one stream or in several; on a device: read and written
                            by copies inside it */
    double dense_flop_s; /* bf16 products of the stream's code path out of registers; a product and
                            a sum are 2; on a device 0: not measured */
    /* The same of all rounds together: what the machine gave. A guest on the other hyperthread of a
     * core takes part of it away, and no counter of ours shows that. At most the best. */
    double read_mean_bytes_s, dense_mean_flop_s;
};

/* A buffer that no cache of today's machines holds; tests take less. */
enum { MACHINE_LIMITS_BUFFER_BYTES = 256 << 20 };

/*
 * Measures for about `ms` milliseconds each (a round at least): the best of several rounds, since
 * other programs only slow it down, and their mean. The buffer is read whole in each round.
 * STATUS_NOMEM: no memory for the buffer.
 */
enum status machine_limits_measure(struct machine_limits *limits, struct stream *stream,
                                   size_t buffer_bytes, int ms, struct error *err);

#endif
