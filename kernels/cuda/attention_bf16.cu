/*
 * attention_bf16.cu - the tensor-core version: 64 queries, one kv head and one split a block of four warps.
 *
 * Each warp has 16 queries. K and V come in blocks of 64 positions by cp.async, the next one while this one is used.
 * Inside a split the blocks go in order with a running maximum (Dao 2023, arXiv 2307.08691); a block that is masked for
 * a query as a whole changes none of its numbers: its maximum stays, the factor is one and the weights are zeros.
 */
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/tensor.cuh"

#include <math.h>

enum {
    QUERY_WARPS = TILE_QUERIES / 16,
    ATTENTION_THREADS = QUERY_WARPS * LANES,
    KEY_TILES = KV_BLOCK_TOKENS / 8, /* of 8 positions: columns of one mma */
    BLOCKS_A_SPLIT = KV_SPLIT_TOKENS / KV_BLOCK_TOKENS,
    BUFFERS = 2
};

/* Steps of 16 numbers in a head, padded: 1, 2, 4, 8 or 16. */
template <int STEPS> struct layout {
    enum {
        HEAD = 16 * STEPS,
        STRIDE = HEAD + 8, /* rows in shared memory: 16 bytes more, so that eight of them touch all banks */
        MATRIX = KV_BLOCK_TOKENS * STRIDE,
        SHARED_BYTES = BUFFERS * 2 * MATRIX * 2
    };
};

/* 16 bytes of a row of K or V, zero where there is no such position or number. Rows of whole chunks are aligned. */
static __device__ __forceinline__ void fetch_chunk(__nv_bfloat16 *to, const __nv_bfloat16 *row, int first, int d,
                                                   bool is_there)
{
    if (d % CHUNK == 0) {
        bool all = is_there && first < d;
        copy_async(to, all ? row + first : row, all ? 16 : 0);
        return;
    }
#pragma unroll
    for (int i = 0; i < CHUNK; i++)
        to[i] = is_there && first + i < d ? row[first + i] : __ushort_as_bfloat16(0);
}

/* Begins to fetch block `block` of the sequence; positions from `end` on become zeros. */
template <int STEPS>
static __device__ __forceinline__ void fetch_block(const struct attention_arguments &a, const struct row_tile &tile,
                                                   int block, int kv_head, int end, __nv_bfloat16 *buffer)
{
    const int chunks = layout<STEPS>::HEAD / CHUNK, d = a.head_dim;
    const char *keys = kv_keys(a, tile, block, kv_head);
    for (int i = (int)threadIdx.x; i < KV_BLOCK_TOKENS * chunks; i += ATTENTION_THREADS) {
        int position = i / chunks, first = i % chunks * CHUNK;
        bool is_there = block * KV_BLOCK_TOKENS + position < end;
        size_t at = (size_t)position * (size_t)d;
        __nv_bfloat16 *to = buffer + position * layout<STEPS>::STRIDE + first;
        fetch_chunk(to, (const __nv_bfloat16 *)keys + at, first, d, is_there);
        fetch_chunk(to + layout<STEPS>::MATRIX, (const __nv_bfloat16 *)(keys + a.kv.value_bytes) + at, first, d,
                    is_there);
    }
    copy_async_commit();
}

/* What a lane knows of its two queries: rows lane / 4 and lane / 4 + 8 of its warp's sixteen. */
struct two_queries {
    const __nv_bfloat16 *q[2]; /* NULL: there is no such query */
    int position[2];
};

static __device__ __forceinline__ uint32_t two_numbers(const __nv_bfloat16 *q, int first, int d)
{
    if (!q || first >= d)
        return 0;
    return (uint32_t)__bfloat16_as_ushort(q[first + 1]) << 16 | __bfloat16_as_ushort(q[first]);
}

/* The state of a warp: queries, running results. */
template <int STEPS> struct walk {
    uint32_t q[STEPS][4];
    float values[2 * STEPS][4];
    float largest[2], sum[2]; /* sum: of this lane's columns */
};

template <int STEPS>
static __device__ __forceinline__ void begin(struct walk<STEPS> *w, const struct two_queries &queries, int d)
{
    const int column = 2 * (int)(threadIdx.x % 4);
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            w->q[step][i] = two_numbers(queries.q[i % 2], 16 * step + 8 * (i / 2) + column, d);
#pragma unroll
    for (int tile = 0; tile < 2 * STEPS; tile++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            w->values[tile][i] = 0;
    w->largest[0] = w->largest[1] = -INFINITY;
    w->sum[0] = w->sum[1] = 0;
}

/* scores = q k^T of 64 positions. */
template <int STEPS>
static __device__ __forceinline__ void multiply_keys(float scores[KEY_TILES][4], const struct walk<STEPS> *w,
                                                     const __nv_bfloat16 *keys)
{
    const int lane = (int)(threadIdx.x % LANES);
    const __nv_bfloat16 *row = keys + (lane / 16 * 8 + lane % 8) * layout<STEPS>::STRIDE + lane / 8 % 2 * 8;
#pragma unroll
    for (int tile = 0; tile < KEY_TILES; tile += 2) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            scores[tile][i] = scores[tile + 1][i] = 0;
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t k[4];
            tensor_load(k, row + tile * 8 * layout<STEPS>::STRIDE + 16 * step);
            tensor_mma(scores[tile], w->q[step], k);
            tensor_mma(scores[tile + 1], w->q[step], k + 2);
        }
    }
}

/* Scores to weights: scaled, masked, relative to the running maximum; what was there before is scaled down to it. */
template <int STEPS>
static __device__ __forceinline__ void weigh(float scores[KEY_TILES][4], struct walk<STEPS> *w,
                                             const struct two_queries &queries, int first, float scale)
{
    const int column = 2 * (int)(threadIdx.x % 4);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = w->largest[half];
#pragma unroll
        for (int tile = 0; tile < KEY_TILES; tile++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                bool is_seen = first + 8 * tile + column + i <= queries.position[half];
                float s = is_seen ? scores[tile][2 * half + i] * scale : -INFINITY;
                scores[tile][2 * half + i] = s;
                largest = fmaxf(largest, s);
            }
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
        float base = largest == -INFINITY ? 0.0f : largest; /* nothing seen yet: all weights are zeros */
        float factor = expf(w->largest[half] - base), sum = 0;
        w->largest[half] = largest;
#pragma unroll
        for (int tile = 0; tile < KEY_TILES; tile++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float weight = rounded<__nv_bfloat16>(expf(scores[tile][2 * half + i] - base));
                scores[tile][2 * half + i] = weight;
                sum += weight;
            }
        w->sum[half] = w->sum[half] * factor + sum;
#pragma unroll
        for (int tile = 0; tile < 2 * STEPS; tile++) {
            w->values[tile][2 * half] *= factor;
            w->values[tile][2 * half + 1] *= factor;
        }
    }
}

/* values += weights v of 64 positions. */
template <int STEPS>
static __device__ __forceinline__ void multiply_values(struct walk<STEPS> *w, const float weights[KEY_TILES][4],
                                                       const __nv_bfloat16 *values)
{
    const int lane = (int)(threadIdx.x % LANES);
    const __nv_bfloat16 *row = values + (lane / 8 % 2 * 8 + lane % 8) * layout<STEPS>::STRIDE + lane / 16 * 8;
#pragma unroll
    for (int tile = 0; tile < KEY_TILES; tile += 2) {
        const float *near = weights[tile], *far = weights[tile + 1];
        uint32_t p[4] = {tensor_pair(near[0], near[1]), tensor_pair(near[2], near[3]), tensor_pair(far[0], far[1]),
                         tensor_pair(far[2], far[3])};
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            uint32_t v[4];
            tensor_load_transposed(v, row + tile * 8 * layout<STEPS>::STRIDE + 16 * step);
            tensor_mma(w->values[2 * step], p, v);
            tensor_mma(w->values[2 * step + 1], p, v + 2);
        }
    }
}

template <int STEPS>
static __device__ __forceinline__ void write_partials(const struct attention_arguments &a, struct walk<STEPS> *w,
                                                      const struct row_tile &tile, int first_query, int kv_head,
                                                      int split)
{
    const int lane = (int)(threadIdx.x % LANES), group = a.n_heads / a.n_kv_heads, d = a.head_dim;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = w->sum[half] + __shfl_xor_sync(0xffffffffu, w->sum[half], 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        int query = first_query + lane / 4 + 8 * half;
        if (query >= tile.n_rows * group)
            continue;
        const struct row_entry entry = a.entries[tile.first_entry + query / group];
        if (entry.position < split * KV_SPLIT_TOKENS)
            continue;
        float *partial = partial_of(a, entry, kv_head * group + query % group, split);
#pragma unroll
        for (int t = 0; t < 2 * STEPS; t++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int column = 8 * t + 2 * (lane % 4) + i;
                if (column < d)
                    partial[column] = w->values[t][2 * half + i];
            }
        if (lane % 4 == 0) {
            partial[d] = w->largest[half];
            partial[d + 1] = sum;
        }
    }
}

static __device__ __forceinline__ struct two_queries find_queries(const struct attention_arguments &a,
                                                                  const struct row_tile &tile, int first_query,
                                                                  int kv_head)
{
    const int group = a.n_heads / a.n_kv_heads;
    struct two_queries queries;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int query = first_query + (int)(threadIdx.x % LANES) / 4 + 8 * half;
        queries.q[half] = NULL;
        queries.position[half] = -1;
        if (query >= tile.n_rows * group)
            continue;
        const struct row_entry entry = a.entries[tile.first_entry + query / group];
        size_t head = (size_t)(kv_head * group + query % group);
        queries.q[half] = (const __nv_bfloat16 *)a.qkv + (size_t)entry.row * qkv_row(a) + head * (size_t)a.head_dim;
        queries.position[half] = entry.position;
    }
    return queries;
}

template <int STEPS>
static __global__ void __launch_bounds__(ATTENTION_THREADS) attention_bf16_kernel(struct attention_arguments a)
{
    DYNAMIC_SHARED(shared);
    const int kv_head = (int)blockIdx.y, split = (int)blockIdx.z;
    const struct row_tile tile = a.tiles[blockIdx.x];
    const int end = tile.start + tile.n_rows, first_block = split * BLOCKS_A_SPLIT;
    if (split * KV_SPLIT_TOKENS >= end)
        return;
    const int blocks_left = (end + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS - first_block;
    const int n_blocks = blocks_left < BLOCKS_A_SPLIT ? blocks_left : BLOCKS_A_SPLIT;
    const int first_query = (int)(threadIdx.x / LANES) * 16;
    const bool has_queries = first_query < tile.n_rows * (a.n_heads / a.n_kv_heads);
    __nv_bfloat16 *buffers = (__nv_bfloat16 *)shared;
    struct two_queries queries = find_queries(a, tile, first_query, kv_head);
    struct walk<STEPS> w;
    begin<STEPS>(&w, queries, a.head_dim);
    fetch_block<STEPS>(a, tile, first_block, kv_head, end, buffers);
    for (int i = 0; i < n_blocks; i++) {
        __nv_bfloat16 *here = buffers + i % BUFFERS * 2 * layout<STEPS>::MATRIX;
        copy_async_wait<0>();
        __syncthreads(); /* block i is there for all, and nobody reads block i - 1 any more */
        if (i + 1 < n_blocks)
            fetch_block<STEPS>(a, tile, first_block + i + 1, kv_head, end,
                               buffers + (i + 1) % BUFFERS * 2 * layout<STEPS>::MATRIX);
        if (!has_queries)
            continue;
        float scores[KEY_TILES][4];
        multiply_keys<STEPS>(scores, &w, here);
        weigh<STEPS>(scores, &w, queries, (first_block + i) * KV_BLOCK_TOKENS, a.scale);
        multiply_values<STEPS>(&w, scores, here + layout<STEPS>::MATRIX);
    }
    if (has_queries)
        write_partials<STEPS>(a, &w, tile, first_query, kv_head, split);
}

template <int STEPS> static enum status launch(struct cuda_device *cuda, const struct attention_arguments *a, dim3 grid)
{
    const size_t shared_bytes = layout<STEPS>::SHARED_BYTES;
    enum status st = cuda_note(cuda,
                               cudaFuncSetAttribute(attention_bf16_kernel<STEPS>,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes),
                               "shared memory for attention");
    if (st != STATUS_OK)
        return st;
    LAUNCH(attention_bf16_kernel<STEPS>, grid, dim3(ATTENTION_THREADS), shared_bytes, cuda->stream, *a);
    return cuda_launched(cuda, "attention");
}

enum status attention_launch_bf16(struct cuda_device *cuda, const struct attention_arguments *a, dim3 grid)
{
    if (a->n_heads / a->n_kv_heads > TILE_QUERIES)
        return STATUS_UNSUPPORTED;
    int steps = (a->head_dim + 15) / 16;
    if (steps <= 1)
        return launch<1>(cuda, a, grid);
    if (steps <= 2)
        return launch<2>(cuda, a, grid);
    if (steps <= 4)
        return launch<4>(cuda, a, grid);
    return steps <= 8 ? launch<8>(cuda, a, grid) : launch<16>(cuda, a, grid);
}
