/*
 * elementwise.c - rmsnorm, add and silu_mul: the rows among the threads, the version by the compute
 * type.
 */
#include "kernels/elementwise.h"

#include "base/check.h"
#include "kernels/add.h"
#include "kernels/device.h"
#include "kernels/rmsnorm.h"
#include "kernels/rows.h"
#include "kernels/silu_mul.h"

struct task {
    const void *launch;
    enum dtype dtype;
    enum code_path path;
};

static void rmsnorm_rows(void *context, int first, int last)
{
    const struct task *task = context;
    if (task->dtype == DTYPE_F32)
        rmsnorm_ref(task->launch, first, last);
    else
        rmsnorm_cpu(task->launch, first, last, task->path);
}

static enum status run(struct stream *stream, rows_task rows, const void *launch, enum dtype dtype,
                       int n_rows, size_t numbers_a_row)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_BF16);
    CHECK(n_rows >= 0);
    struct task task = {launch, dtype, stream_code_path(stream)};
    rows_run(stream, rows, &task, n_rows, numbers_a_row * dtype_bytes(dtype));
    return STATUS_OK;
}

enum status rmsnorm(void *y, const void *x, const float *weight, enum dtype dtype, int n_rows,
                    int hidden, float eps, struct stream *stream)
{
    struct rmsnorm_launch l = {y, x, NULL, NULL, weight, hidden, eps};
    struct device *device = stream_device(stream);
    if (device)
        return device->operations->rmsnorm(device, &l, dtype, n_rows);
    return run(stream, rmsnorm_rows, &l, dtype, n_rows, 2 * (size_t)hidden);
}

enum status add_rmsnorm(void *y, void *x, const void *delta, const float *weight, enum dtype dtype,
                        int n_rows, int hidden, float eps, struct stream *stream)
{
    struct rmsnorm_launch l = {y, x, x, delta, weight, hidden, eps};
    struct device *device = stream_device(stream);
    if (device)
        return device->operations->rmsnorm(device, &l, dtype, n_rows);
    return run(stream, rmsnorm_rows, &l, dtype, n_rows, 4 * (size_t)hidden);
}

static void add_rows(void *context, int first, int last)
{
    const struct task *task = context;
    if (task->dtype == DTYPE_F32)
        add_ref(task->launch, first, last);
    else
        add_cpu(task->launch, first, last, task->path);
}

enum status add(void *x, const void *delta, enum dtype dtype, int n_rows, int hidden,
                struct stream *stream)
{
    struct add_launch l = {x, delta, hidden};
    struct device *device = stream_device(stream);
    if (device)
        return device->operations->add(device, &l, dtype, n_rows);
    return run(stream, add_rows, &l, dtype, n_rows, 3 * (size_t)hidden);
}

static void silu_mul_rows(void *context, int first, int last)
{
    const struct task *task = context;
    if (task->dtype == DTYPE_F32)
        silu_mul_ref(task->launch, first, last);
    else
        silu_mul_cpu(task->launch, first, last, task->path);
}

enum status silu_mul(void *y, const void *gate_up, enum dtype dtype, int n_rows, int inter,
                     struct stream *stream)
{
    struct silu_mul_launch l = {y, gate_up, inter};
    struct device *device = stream_device(stream);
    if (device)
        return device->operations->silu_mul(device, &l, dtype, n_rows);
    return run(stream, silu_mul_rows, &l, dtype, n_rows,
               6 * (size_t)inter); /* the exponential counts double */
}
