/*
 * pool.h - the threads of one stream: the creator is thread 0, the others wait for tasks.
 *
 * A task runs once on every thread; pool_run() returns when all are through. Publishing a task is
 * one increment of `generation`: a waiting thread spins on it for SPIN_NS, then sleeps on it
 * (futex); the caller waits for the others in the same two ways. Nothing is locked. Where the
 * process has fewer CPUs than threads nobody spins.
 */
#ifndef MGPT_KERNELS_CPU_POOL_H
#define MGPT_KERNELS_CPU_POOL_H

#include "kernels/stream.h"

struct pool;

/* Starts the other threads and pins each, and the caller, to its CPU as stream_options says;
 * pool_destroy() gives the caller its CPUs back. */
enum status pool_create(struct pool **out, const struct stream_options *options, struct error *err);
void pool_destroy(struct pool *pool); /* NULL is fine */
void pool_run(struct pool *pool, stream_task task, void *context);

#endif
