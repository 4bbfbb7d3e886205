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
    double read_bytes_s; /* all threads together, each reading its part of the buffer, in one stream
                            or in several; on a device: read and written by copies inside it */
    double dense_flop_s; /* bf16 products of the stream's code path out of registers; a product and
                            a sum are 2; on a device 0: not measured */
    /* The same of all rounds together: what the machine gave. A guest on the other hyperthread of a
     * core takes part of it away, and no counter of ours shows that. At most the best. */
    double read_mean_bytes_s, dense_mean_flop_s;
};

/*
 * What the buffer should have at least: four times the last-level cache, as STREAM asks
 * (https://www.cs.virginia.edu/stream/ref.html), within 256 MiB and an eighth of the free memory. A
 * virtual machine is told of a cache that it shares with others; on one with 480 MiB, 256 MiB were
 * read a tenth faster than memory. On a device 256 MiB.
 */
size_t machine_limits_buffer_bytes(const struct stream *stream);

/*
 * Measures for about `ms` milliseconds each (a round at least): the best of several rounds, since
 * other programs only slow it down, and their mean. buffer: of stream_alloc(), the caller's; rounds
 * read one piece of it after the other.
 */
enum status machine_limits_measure(struct machine_limits *limits, struct stream *stream,
                                   void *buffer, size_t buffer_bytes, int ms, struct error *err);

#endif
