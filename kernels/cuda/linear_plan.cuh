/*
 * linear_plan.cuh - how products with one shape of weights are done: an algorithm of cuBLASLt, proven row-invariant.
 *
 * Products have as many rows as a bucket has: 2, 4, 8 ... 256 (linear_padded_rows()); more rows are several products. So
 * the library sees few shapes, and all of them are tested when a plan is made.
 */
#ifndef MGPT_KERNELS_CUDA_LINEAR_PLAN_CUH
#define MGPT_KERNELS_CUDA_LINEAR_PLAN_CUH

#include "kernels/cuda/cuda.cuh"

enum { LINEAR_BUCKETS = 8 };
static_assert(2 << (LINEAR_BUCKETS - 1) == LINEAR_ROWS_MAX, "buckets are the powers of two from 2 on");

struct linear_layouts {
    cublasLtMatrixLayout_t x, y;
};

/* What tells plans apart. */
struct linear_shape {
    int n_out, n_in;
    enum dtype dtype, y_dtype;
};

struct linear_plan {
    struct linear_shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t weight;
    struct linear_layouts layouts[LINEAR_BUCKETS]; /* of 2 << i rows */
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace_bytes;
};

/* The plan for this shape; NULL when none was made. */
const struct linear_plan *linear_plan_find(const struct cuda_device *cuda, const struct linear_shape *shape);

/* Makes it where there is none. matrix: device [n_out, n_in] of numbers that are not all zeros; read only. */
enum status linear_plan_make(struct cuda_device *cuda, const struct linear_shape *shape, const void *matrix,
                             struct error *err);

/* y = x W^T, or y += x W^T, of 2 << bucket rows. */
cublasStatus_t linear_plan_run(struct cuda_device *cuda, const struct linear_plan *plan, void *y, const void *x,
                               const void *matrix, int bucket, bool add);

/* Numbers in (-1, 1), each of its index alone. */
enum status linear_fill_noise(struct cuda_device *cuda, void *out, enum dtype dtype, size_t n);

#endif
