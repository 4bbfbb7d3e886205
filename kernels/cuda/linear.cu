/*
 * linear.cu - dense products by cuBLASLt, in pieces of as many rows as its tested buckets have (linear_plan.cuh).
 */
#include "kernels/cuda/linear_plan.cuh"

enum { BIAS_THREADS = 256 };

static struct linear_shape shape_of(const struct linear_weight *weight, int n_out, enum dtype y_dtype)
{
    struct linear_shape shape = {n_out, weight->options.n_in, weight->options.dtype, y_dtype};
    return shape;
}

enum status linear_prepare_cuda(struct device *device, const struct linear_weight *weight, struct error *err)
{
    struct cuda_device *cuda = cuda_of(device);
    struct linear_shape shape = shape_of(weight, weight->options.n_out, weight->options.dtype);
    if (linear_plan_find(cuda, &shape))
        return STATUS_OK;
    size_t n = (size_t)shape.n_out * (size_t)shape.n_in;
    enum status st = linear_fill_noise(cuda, weight->matrix, shape.dtype, n);
    if (st == STATUS_OK)
        st = linear_plan_make(cuda, &shape, weight->matrix, err);
    cuda_note(cuda, cudaMemsetAsync(weight->matrix, 0, n * dtype_bytes(shape.dtype), cuda->stream), "a memset");
    return st;
}

enum status linear_prepare_range_cuda(struct device *device, const struct linear_weight *weight, int n_out,
                                      struct error *err)
{
    struct linear_shape shape = shape_of(weight, n_out, DTYPE_F32);
    return linear_plan_make(cuda_of(device), &shape, weight->matrix, err);
}

template <class T>
static __global__ void __launch_bounds__(BIAS_THREADS) bias_kernel(T *y, const float *bias, int n_out)
{
    int i = (int)(blockIdx.y * BIAS_THREADS + threadIdx.x);
    if (i < n_out)
        from_f32(&y[(size_t)blockIdx.x * (size_t)n_out + (size_t)i], bias[i]);
}

/* The product is added to y = bias inside cuBLASLt, in f32; a bias of the compute type keeps all its bits. */
static void fill_bias(struct cuda_device *cuda, const struct linear_launch *l, int n_rows)
{
    dim3 grid((unsigned)n_rows, blocks_for((size_t)l->n_out, BIAS_THREADS));
    const float *bias = l->weight->bias + l->first_out;
    if (l->y_dtype == DTYPE_F32)
        LAUNCH(bias_kernel<float>, grid, dim3(BIAS_THREADS), 0, cuda->stream, (float *)l->y, bias, l->n_out);
    else
        LAUNCH(bias_kernel<__nv_bfloat16>, grid, dim3(BIAS_THREADS), 0, cuda->stream, (__nv_bfloat16 *)l->y, bias,
               l->n_out);
}

static int bucket_of(int n_rows)
{
    int bucket = 0;
    while (bucket < LINEAR_BUCKETS - 1 && 2 << bucket < n_rows)
        bucket++;
    return bucket;
}

enum status linear_cuda(struct device *device, const struct linear_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    struct linear_shape shape = shape_of(l->weight, l->n_out, l->y_dtype);
    const struct linear_plan *plan = linear_plan_find(cuda, &shape);
    if (!plan)
        return cuda_note(cuda, cudaErrorInvalidValue, "a product that nobody has prepared");
    const size_t x_row_bytes = (size_t)shape.n_in * dtype_bytes(shape.dtype);
    const size_t y_row_bytes = (size_t)shape.n_out * dtype_bytes(shape.y_dtype);
    const char *matrix = (const char *)l->weight->matrix + (size_t)l->first_out * x_row_bytes;
    const bool has_bias = l->weight->bias != NULL;
    if (has_bias)
        fill_bias(cuda, l, linear_padded_rows_cuda(l->n_rows));
    for (int first = 0; first < l->n_rows; first += LINEAR_ROWS_MAX) {
        cublasStatus_t status = linear_plan_run(cuda, plan, (char *)l->y + (size_t)first * y_row_bytes,
                                                (const char *)l->x + (size_t)first * x_row_bytes, matrix,
                                                bucket_of(l->n_rows - first), has_bias);
        if (status != CUBLAS_STATUS_SUCCESS)
            return cuda_note(cuda, cudaErrorInvalidValue, cublasLtGetStatusString(status));
    }
    return cuda_launched(cuda, "linear");
}

int linear_padded_rows_cuda(int n_rows)
{
    int rest = n_rows % LINEAR_ROWS_MAX;
    return n_rows - rest + (rest ? 2 << bucket_of(rest) : 0);
}
