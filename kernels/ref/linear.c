/*
 * linear.c - the f32 product: each output is one sum from the first input to the last, product and
 * sum rounded apart.
 *
 * Rows go four at a time so that a group of weights is loaded once for them. The same source is
 * compiled for wider vectors too; since no product is fused, all of them give the same bits.
 */
#include "kernels/linear_weight.h"

typedef float f32x16 __attribute__((vector_size(64)));

enum { ROWS = 4 };

#define INLINE static inline __attribute__((always_inline))

INLINE void multiply_rows(f32x16 sum[ROWS], const float *x, size_t ld_x, const float *group,
                          int n_in, const int rows)
{
    for (int in = 0; in < n_in; in++) {
        f32x16 w;
        memcpy(&w, group + (size_t)in * LINEAR_GROUP, sizeof(w));
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++)
            sum[r] += w * x[(size_t)r * ld_x + (size_t)in];
    }
}

INLINE void store_row(const struct linear_launch *l, int row, int group, const f32x16 *sum)
{
    float values[LINEAR_GROUP];
    memcpy(values, sum, sizeof(values));
    float *y = (float *)l->y + (size_t)row * (size_t)l->n_out;
    for (int lane = 0; lane < LINEAR_GROUP; lane++) {
        int out = group * LINEAR_GROUP + lane, column = out - l->first_out;
        if (column >= 0 && column < l->n_out)
            y[column] = l->weight->bias ? values[lane] + l->weight->bias[out] : values[lane];
    }
}

INLINE void multiply_group(const struct linear_launch *l, int group)
{
    const struct linear_weight *w = l->weight;
    const size_t ld_x = (size_t)w->options.n_in;
    const float *weights = (const float *)w->matrix + linear_weight_group_offset(w, group);
    for (int row = 0; row < l->n_rows; row += ROWS) {
        const float *x = (const float *)l->x + (size_t)row * ld_x;
        f32x16 sum[ROWS] = {{0}};
        int rows = l->n_rows - row < ROWS ? l->n_rows - row : ROWS;
        if (rows == ROWS)
            multiply_rows(sum, x, ld_x, weights, w->options.n_in, ROWS);
        else
            for (int r = 0; r < rows; r++)
                multiply_rows(sum + r, x + (size_t)r * ld_x, ld_x, weights, w->options.n_in, 1);
        for (int r = 0; r < rows; r++)
            store_row(l, row + r, group, &sum[r]);
    }
}

static void group_baseline(const struct linear_launch *l, int group)
{
    multiply_group(l, group);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void group_avx2(const struct linear_launch *l, int group)
{
    multiply_group(l, group);
}

__attribute__((target("avx512f"))) static void group_avx512(const struct linear_launch *l,
                                                            int group)
{
    multiply_group(l, group);
}
#endif

struct task {
    const struct linear_launch *launch;
    enum code_path path;
};

static void multiply_share(void *context, int thread_index, int n_threads)
{
    const struct task *task = context;
    const struct linear_launch *l = task->launch;
    int first = l->first_out / LINEAR_GROUP;
    int64_t n = (l->first_out + l->n_out + LINEAR_GROUP - 1) / LINEAR_GROUP - first, group, end;
    stream_share(n, thread_index, n_threads, &group, &end);
    for (; group < end; group++) {
#if defined(__x86_64__)
        if (task->path >= CODE_PATH_AVX512BF16) {
            group_avx512(l, first + (int)group);
            continue;
        }
        if (task->path == CODE_PATH_AVX2) {
            group_avx2(l, first + (int)group);
            continue;
        }
#endif
        group_baseline(l, first + (int)group);
    }
}

enum status linear_ref(const struct linear_launch *launch, struct stream *stream)
{
    struct task task = {launch, stream_code_path(stream)};
    stream_parallel(stream, multiply_share, &task);
    return STATUS_OK;
}
