/*
 * tensor.cuh - instructions that C++ cannot say, one wrapper each: mma.sync, ldmatrix, cp.async.
 */
#ifndef MGPT_KERNELS_CUDA_TENSOR_CUH
#define MGPT_KERNELS_CUDA_TENSOR_CUH

#include "kernels/cuda/cuda.cuh"

/* d += a b: a [16, 16] bf16, b [16, 8] bf16, d [16, 8] f32, in the registers of a warp as PTX lays them out. */
static __device__ __forceinline__ void tensor_mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef MGPT_SIMGPU
    simgpu::mma_m16n8k16(d, a, b);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* Four 8x8 matrices of bf16 out of shared memory; lane 8 i + r gives row r of matrix i, aligned to 16 bytes. */
static __device__ __forceinline__ void tensor_load(uint32_t out[4], const void *row)
{
#ifdef MGPT_SIMGPU
    simgpu::load_matrix_x4(out, row, false);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* The same, each matrix transposed. */
static __device__ __forceinline__ void tensor_load_transposed(uint32_t out[4], const void *row)
{
#ifdef MGPT_SIMGPU
    simgpu::load_matrix_x4(out, row, true);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
#endif
}

/* Begins to copy n_bytes (0 to 16; the rest of 16 becomes zero) into shared memory; both aligned to 16 bytes. */
static __device__ __forceinline__ void copy_async(void *shared, const void *global, int n_bytes)
{
#ifdef MGPT_SIMGPU
    simgpu::copy_async_16(shared, global, n_bytes);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global), "r"(n_bytes)
                 : "memory");
#endif
}

/* Ends a group of copies, and waits until at most N groups of this thread are under way. */
static __device__ __forceinline__ void copy_async_commit()
{
#ifdef MGPT_SIMGPU
    simgpu::copy_async_commit();
#else
    asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

template <int N> static __device__ __forceinline__ void copy_async_wait()
{
#ifdef MGPT_SIMGPU
    simgpu::copy_async_wait(N);
#else
    asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#endif
}

/* Two numbers as one register of mma, the first in the low half. */
static __device__ __forceinline__ uint32_t tensor_pair(float low, float high)
{
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(high)) << 16 |
           __bfloat16_as_ushort(__float2bfloat16_rn(low));
}

static __device__ __forceinline__ float tensor_low(uint32_t pair)
{
    return __bfloat162float(__ushort_as_bfloat16((unsigned short)(pair & 0xffff)));
}

static __device__ __forceinline__ float tensor_high(uint32_t pair)
{
    return __bfloat162float(__ushort_as_bfloat16((unsigned short)(pair >> 16)));
}

#endif
