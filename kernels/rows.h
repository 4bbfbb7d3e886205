/*
 * rows.h - operations that treat each row alone: the loop over rows, on as many threads as the work
 * is worth.
 */
#ifndef MGPT_KERNELS_ROWS_H
#define MGPT_KERNELS_ROWS_H

#include "kernels/stream.h"

/* Below this many bytes touched, waking the other threads costs more than they save. */
enum { ROWS_ALONE_BYTES = 48 * 1024 };

/* Handles rows [first, last). */
typedef void (*rows_task)(void *context, int first, int last);

/* Cuts n_rows among the threads; row_bytes: what a row reads and writes. */
void rows_run(struct stream *stream, rows_task task, void *context, int n_rows, size_t row_bytes);

#endif
