/*
 * rows.c - contiguous shares of rows, or all of them here when they are few.
 */
#include "kernels/rows.h"

struct shares {
    rows_task task;
    void *context;
    int n_rows;
};

static void run_share(void *context, int thread_index, int n_threads)
{
    const struct shares *shares = context;
    int64_t first, last;
    stream_share(shares->n_rows, thread_index, n_threads, &first, &last);
    if (first < last)
        shares->task(shares->context, (int)first, (int)last);
}

void rows_run(struct stream *stream, rows_task task, void *context, int n_rows, size_t row_bytes)
{
    struct shares shares = {task, context, n_rows};
    if ((size_t)n_rows * row_bytes <= ROWS_ALONE_BYTES)
        task(context, 0, n_rows);
    else
        stream_parallel(stream, run_share, &shares);
}
