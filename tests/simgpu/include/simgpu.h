/*
 * simgpu.h - what kernels see of the simulated device: threads, blocks, barriers, shared memory, warp instructions.
 *
 * A kernel is an ordinary C++ function. The threads of a block are fibers of one host thread; they run one after the
 * other, from one meeting point (barrier, warp instruction) to the next, in an order shuffled from SIMGPU_SEED.
 * What the hardware leaves undefined ends the program with a line that names kernel, block and thread: a barrier that
 * some threads do not reach, warp instructions that lanes reach apart, writing outside an allocation.
 */
#ifndef MGPT_SIMGPU_H
#define MGPT_SIMGPU_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>
#include <utility>

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

typedef struct simgpu_queue *cudaStream_t;

namespace simgpu
{

/* ---- indices ---- */

struct place {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern place here; /* of the thread that runs */

/* ---- meeting points ---- */

enum { WARP_LANES = 32, EXCHANGE_BYTES = 64 };

struct lane_exchange {
    alignas(16) unsigned char in[EXCHANGE_BYTES], out[EXCHANGE_BYTES];
};

/* Runs once, when all lanes have come: from what they brought to what each takes away. */
typedef void (*warp_function)(lane_exchange *lanes);

void block_barrier();
lane_exchange *warp_meet(unsigned mask, const char *what, const void *in, size_t in_bytes, warp_function function);
unsigned char *shared_memory();

/* Asynchronous copies into shared memory: done when they are waited for, not before. */
void copy_async_16(void *shared, const void *global, int n_bytes);
void copy_async_commit();
void copy_async_wait(int n_groups_left);

[[noreturn]] void stop(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- launches ---- */

void enqueue_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                    std::function<void()> body);

/* Arguments are copied now, as a launch does; the kernel runs when somebody waits for the stream. */
template <class... Parameters, class... Arguments>
void launch(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Arguments &&...arguments)
{
    std::tuple<Parameters...> copies(std::forward<Arguments>(arguments)...);
    enqueue_kernel(name, grid, block, shared_bytes, stream, [kernel, copies] { std::apply(kernel, copies); });
}

/* ---- warp instructions ---- */

struct shuffle_in {
    uint32_t bits;
    int from;
};
void shuffle_lanes(lane_exchange *lanes);

template <class T> T shuffle(unsigned mask, T value, int from)
{
    static_assert(sizeof(T) == sizeof(uint32_t), "shuffles of 32 bits are modelled");
    shuffle_in in = {0, from};
    __builtin_memcpy(&in.bits, &value, sizeof(value));
    lane_exchange *mine = warp_meet(mask, "shuffle", &in, sizeof(in), shuffle_lanes);
    T result;
    __builtin_memcpy(&result, mine->out, sizeof(result));
    return result;
}

/* D = A B + C of m16n8k16, bf16 in, f32 sums; registers as PTX lays them out. */
void mma_m16n8k16(float d[4], const uint32_t a[4], const uint32_t b[2]);
/* Four 8x8 matrices of 16-bit numbers; lane 8 i + r gives the address of row r of matrix i. */
void load_matrix_x4(uint32_t out[4], const void *row, bool transposed);

} // namespace simgpu

/* ---- the words of CUDA C ---- */

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define threadIdx simgpu::here.thread
#define blockIdx simgpu::here.block
#define blockDim simgpu::here.block_dim
#define gridDim simgpu::here.grid_dim

static inline void __syncthreads()
{
    simgpu::block_barrier();
}
/* Threads run one at a time: whole numbers can be added in any order. */
template <class T> static inline T atomicAdd(T *to, T x)
{
    static_assert((T)0.5 == (T)0, "sums of whole numbers are modelled: those of others depend on the order");
    T before = *to;
    *to += x;
    return before;
}
template <class T> static inline T atomicMin(T *to, T x)
{
    T before = *to;
    *to = x < before ? x : before;
    return before;
}
void __syncwarp(unsigned mask = 0xffffffffu);
int __any_sync(unsigned mask, int predicate);

template <class T> T __shfl_sync(unsigned mask, T value, int lane)
{
    return simgpu::shuffle(mask, value, lane);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask)
{
    return simgpu::shuffle(mask, value, (int)(simgpu::here.thread.x % simgpu::WARP_LANES) ^ lane_mask);
}

#endif
