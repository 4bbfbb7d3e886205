/*
 * finite.cu - which rows have numbers that are infinite or NaN: a look at each number's exponent, a block a row.
 */
#include "kernels/cuda/cuda.cuh"

enum { FINITE_THREADS = 256, FINITE_WARPS = FINITE_THREADS / LANES };

/* An exponent of all ones. */
static __device__ __forceinline__ bool is_bad(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return (bits & 0x7f800000u) == 0x7f800000u;
}

/* bad[row] = 1 or 0. */
template <class T>
static __global__ void __launch_bounds__(FINITE_THREADS) finite_kernel(int32_t *bad, const T *x, int hidden)
{
    DYNAMIC_SHARED(shared);
    int *of_warps = (int *)shared;
    const T *row = x + (size_t)blockIdx.x * (size_t)hidden;
    bool found = false;
    for (int i = (int)threadIdx.x; i * CHUNK < hidden; i += FINITE_THREADS) {
        float numbers[CHUNK];
        load_chunk(numbers, row, i, hidden);
#pragma unroll
        for (int j = 0; j < CHUNK; j++)
            found |= is_bad(numbers[j]);
    }
    int any = __any_sync(0xffffffffu, found);
    if (threadIdx.x % LANES == 0)
        of_warps[threadIdx.x / LANES] = any;
    __syncthreads();
    if (threadIdx.x != 0)
        return;
    for (int i = 1; i < FINITE_WARPS; i++)
        any |= of_warps[i];
    bad[blockIdx.x] = any != 0;
}

enum status first_not_finite_cuda(struct device *device, int *first, const void *x, enum dtype dtype, int n_rows,
                                  int hidden)
{
    struct cuda_device *cuda = cuda_of(device);
    int32_t bad[256];
    const int step = (int)(sizeof(bad) / sizeof(bad[0]));
    *first = -1;
    for (int row = 0; row < n_rows && *first < 0; row += step) {
        const int n = n_rows - row < step ? n_rows - row : step;
        const char *from = (const char *)x + (size_t)row * (size_t)hidden * dtype_bytes(dtype);
        if (dtype == DTYPE_F32)
            LAUNCH(finite_kernel<float>, dim3((unsigned)n), dim3(FINITE_THREADS), FINITE_WARPS * sizeof(int), cuda->stream, cuda->ids,
                   (const float *)from, hidden);
        else
            LAUNCH(finite_kernel<__nv_bfloat16>, dim3((unsigned)n), dim3(FINITE_THREADS), FINITE_WARPS * sizeof(int), cuda->stream, cuda->ids,
                   (const __nv_bfloat16 *)from, hidden);
        enum status st = cuda_launched(cuda, "a look for numbers that are not finite");
        if (st != STATUS_OK)
            return st;
        cuda_download(cuda, bad, cuda->ids, (size_t)n * sizeof(*bad));
        for (int i = 0; i < n && *first < 0; i++)
            *first = bad[i] ? row + i : -1;
    }
    return STATUS_OK;
}
