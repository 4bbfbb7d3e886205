/*
 * broken_kernels.cu - kernels with one fault each, for simgpu_test: the right one, and what goes wrong in practice.
 *
 * Each sums 256 numbers in shared memory, one block.
 */
#include "kernels/cuda/tensor.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 256 };

enum fault {
    FAULT_NONE,
    FAULT_NO_BARRIER,       /* reads what other warps have not written yet */
    FAULT_ONE_PAST_SHARED,  /* writes one number behind the block's shared memory */
    FAULT_ONE_PAST_GLOBAL,  /* writes one number behind its result */
    FAULT_HALF_AT_BARRIER,  /* a barrier inside a branch */
    FAULT_LANES_APART,      /* a shuffle that one lane does not reach */
    FAULT_UNINITIALISED,    /* adds a number of shared memory that nobody wrote */
    FAULT_COPY_NOT_AWAITED, /* reads what cp.async has not brought yet */
    FAULT_MISALIGNED,       /* cp.async to an odd address */
    FAULT_ONE_PAST_READ,    /* reads one number behind its input */
    FAULT_BLOCKS_IN_ORDER   /* a block that relies on the one before having run */
};

static __global__ void sum_kernel(float *out, const float *x, int fault)
{
    DYNAMIC_SHARED(shared);
    float *sums = (float *)shared;
    const int i = (int)threadIdx.x;
    sums[i] = x[i + (fault == FAULT_ONE_PAST_READ)];
    if (fault == FAULT_ONE_PAST_SHARED && i == 0)
        sums[THREADS] = 1;
    if (fault == FAULT_HALF_AT_BARRIER && i >= THREADS / 2)
        return;
    if (fault == FAULT_LANES_APART && i % LANES != 3)
        sums[i] = warp_sum(sums[i]);
    for (int half = THREADS / 2; half; half /= 2) {
        if (fault != FAULT_NO_BARRIER)
            __syncthreads();
        if (i < half)
            sums[i] += sums[i + half];
    }
    if (i == 0) {
        out[0] = sums[0];
        if (fault == FAULT_ONE_PAST_GLOBAL)
            out[1] = 0;
    }
}

/* The sum by the first thread of what asynchronous copies bring. */
static __global__ void copy_kernel(float *out, const float *x, int fault)
{
    DYNAMIC_SHARED(shared);
    float *numbers = (float *)shared;
    const int i = (int)threadIdx.x;
    if (i < THREADS / 4 - (fault == FAULT_UNINITIALISED))
        copy_async(numbers + 4 * i + (fault == FAULT_MISALIGNED), x + 4 * i, 16);
    copy_async_commit();
    if (fault != FAULT_COPY_NOT_AWAITED)
        copy_async_wait<0>();
    __syncthreads();
    float sum = 0;
    for (int j = 0; i == 0 && j < THREADS; j++)
        sum += numbers[j];
    copy_async_wait<0>();
    if (i == 0)
        out[0] = sum;
}

/* Each block sums its share into parts[block]; with the fault the last one adds up what the others have left by then. */
static __global__ void parts_kernel(float *out, float *parts, const float *x, int fault)
{
    const int n = THREADS / (int)gridDim.x, first = (int)blockIdx.x * n;
    if (threadIdx.x != 0)
        return;
    float sum = 0;
    for (int i = first; i < first + n; i++)
        sum += x[i];
    parts[blockIdx.x] = sum;
    if (fault == FAULT_BLOCKS_IN_ORDER && blockIdx.x + 1 == gridDim.x)
        for (int i = 0; i < (int)gridDim.x; i++)
            out[0] = i ? out[0] + parts[i] : parts[0];
}

/* The right way: what blocks have left is read by the next launch. */
static __global__ void add_parts_kernel(float *out, const float *parts, int n_parts)
{
    if (threadIdx.x != 0)
        return;
    out[0] = parts[0];
    for (int i = 1; i < n_parts; i++)
        out[0] += parts[i];
}

static void run_parts(int fault, float *out, const float *x, cudaStream_t stream)
{
    enum { PARTS = 8 };
    float *parts;
    cudaMalloc((void **)&parts, PARTS * sizeof(*parts));
    LAUNCH(parts_kernel, dim3(PARTS), dim3(LANES), 0, stream, out, parts, x, fault);
    if (fault != FAULT_BLOCKS_IN_ORDER)
        LAUNCH(add_parts_kernel, dim3(1), dim3(LANES), 0, stream, out, parts, PARTS);
    cudaStreamSynchronize(stream);
    cudaFree(parts);
}

static void run(int fault, const char *kind, float *result, const float *numbers)
{
    cudaStream_t stream;
    float *x, *out;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc((void **)&x, THREADS * sizeof(*x));
    cudaMalloc((void **)&out, sizeof(*out));
    cudaMemcpyAsync(x, numbers, THREADS * sizeof(*x), cudaMemcpyHostToDevice, stream);
    if (strcmp(kind, "parts") == 0)
        run_parts(fault, out, x, stream);
    else if (strcmp(kind, "copy") == 0)
        LAUNCH(copy_kernel, dim3(1), dim3(THREADS), THREADS * sizeof(float), stream, out, x, fault);
    else
        LAUNCH(sum_kernel, dim3(1), dim3(THREADS), THREADS * sizeof(float), stream, out, x, fault);
    cudaMemcpyAsync(result, out, sizeof(*out), cudaMemcpyDeviceToHost, stream);
    cudaFree(x);
    cudaFree(out);
    cudaStreamDestroy(stream);
}

/* Exit 0: the sum is right. Exit 1: it is wrong, which a comparison with a twin sees. The simulator may abort. */
int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    float numbers[THREADS], result = 0, want = 0;
    for (int i = 0; i < THREADS; i++)
        want += numbers[i] = (float)(i % 17);
    if (strcmp(argv[1], "touch") == 0) { /* the host reads device memory */
        float *x;
        cudaStream_t stream;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        cudaMalloc((void **)&x, sizeof(*x));
        cudaStreamSynchronize(stream);
        printf("%g\n", (double)*x);
        return 0;
    }
    run(atoi(argv[2]), argv[1], &result, numbers);
    return result == want ? 0 : 1;
}
