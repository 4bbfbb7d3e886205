/*
 * side_queue.h - a second queue of a stream's CUDA device: what runs there overlaps with the stream's kernels.
 *
 * In:      a stream with a device.
 * Out:     the device's own handle, for libraries that queue work (NCCL), order with the stream, marks to look at.
 * Owns:    the queue and its marks.
 * Threads: the stream's.
 *
 * Nothing here waits. Work of the stream never waits for work of a side queue: a transfer whose peer is gone does not
 * end, and must hold nothing else up.
 */
#ifndef MGPT_KERNELS_SIDE_QUEUE_H
#define MGPT_KERNELS_SIDE_QUEUE_H

#include "kernels/stream.h"

enum { SIDE_QUEUE_MARKS = 8 };

struct side_queue;

/* STATUS_UNSUPPORTED: the stream is the CPU's.  stream: borrowed.  On error *out is NULL. */
enum status side_queue_create(struct side_queue **out, struct stream *stream, struct error *err);

/* Work that was queued must have ended, or been aborted, before. NULL is fine. */
void side_queue_destroy(struct side_queue *queue);

/* What is queued from now on runs after everything the stream was given so far. */
enum status side_queue_follow(struct side_queue *queue, struct error *err);

/* Sets mark 0 .. SIDE_QUEUE_MARKS - 1 behind everything queued so far; an earlier one of that number is forgotten. */
enum status side_queue_mark(struct side_queue *queue, int mark, struct error *err);

/* STATUS_OK: the queue has passed the mark.  STATUS_TIMEOUT: not yet.  STATUS_INTERNAL: the device failed. */
enum status side_queue_passed(const struct side_queue *queue, int mark, struct error *err);

/* The cudaStream_t. */
void *side_queue_handle(const struct side_queue *queue);

#endif
