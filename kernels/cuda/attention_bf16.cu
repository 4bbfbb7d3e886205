/*
 * attention_bf16.cu - the tensor-core version: 64 queries, one kv head and one split a block of four warps.
 *
 * K and V come in blocks of 64 positions by cp.async, the next one while this one is used. Inside a split the blocks go
 * in order with a running maximum (Dao 2023, arXiv 2307.08691); a block that is masked for a query as a whole changes
 * none of its numbers: its maximum stays, the factor is one and the weights are zeros.
 * Tiles of many queries: each warp has 16 of them (apart). Tiles of up to 16, as decoding has them: all warps have the
 * same ones, and each multiplies a quarter of the keys, then a quarter of the columns of V (together); one warp alone
 * would not keep up with the memory. Both add the same numbers in the same order, so the bits are the same.
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

/* What warps that work together tell each other of their 16 queries. */
struct exchange {
    uint32_t weights[16][KV_BLOCK_TOKENS / 2 + 4]; /* pairs of bf16; 16 bytes more a row, for the banks */
    float largest[QUERY_WARPS][16];
};

/* Steps of 16 numbers in a head, padded: 1, 2, 4, 8 or 16. */
template <int STEPS> struct layout {
    enum {
        HEAD = 16 * STEPS,
        STRIDE = HEAD + 8, /* rows in shared memory: 16 bytes more, so that eight of them touch all banks */
        MATRIX = KV_BLOCK_TOKENS * STRIDE,
        OWN_STEPS = (STEPS + QUERY_WARPS - 1) / QUERY_WARPS, /* together: of a warp, every fourth */
        BUFFER_BYTES = BUFFERS * 2 * MATRIX * 2,
        SHARED_BYTES = BUFFER_BYTES + sizeof(struct exchange)
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

/* The state of a warp: queries, running results; OWN of the steps of V are its own. */
template <int STEPS, int OWN> struct walk {
    uint32_t q[STEPS][4];
    float values[2 * OWN][4];
    float largest[2], sum[2]; /* sum: of this lane's columns */
};

template <int STEPS, int OWN>
static __device__ __forceinline__ void begin(struct walk<STEPS, OWN> *w, const struct two_queries &queries, int d)
{
    const int column = 2 * (int)(threadIdx.x % 4);
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            w->q[step][i] = two_numbers(queries.q[i % 2], 16 * step + 8 * (i / 2) + column, d);
#pragma unroll
    for (int tile = 0; tile < 2 * OWN; tile++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            w->values[tile][i] = 0;
    w->largest[0] = w->largest[1] = -INFINITY;
    w->sum[0] = w->sum[1] = 0;
}

/* scores = q k^T of 16 positions, tiles `tile` and the next one. */
template <int STEPS>
static __device__ __forceinline__ void multiply_keys(float scores[2][4], const uint32_t q[STEPS][4],
                                                     const __nv_bfloat16 *keys, int tile)
{
    const int lane = (int)(threadIdx.x % LANES);
    const __nv_bfloat16 *row = keys + (8 * tile + lane / 16 * 8 + lane % 8) * layout<STEPS>::STRIDE + lane / 8 % 2 * 8;
#pragma unroll
    for (int i = 0; i < 4; i++)
        scores[0][i] = scores[1][i] = 0;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        uint32_t k[4];
        tensor_load(k, row + 16 * step);
        tensor_mma(scores[0], q[step], k);
        tensor_mma(scores[1], q[step], k + 2);
    }
}

/* Scales and masks the scores of query `half` in a tile whose first position is `first`; the largest of them and `so_far`. */
static __device__ __forceinline__ float mask(float scores[4], int half, const struct two_queries &queries, int first,
                                             float scale, float so_far)
{
    const int column = 2 * (int)(threadIdx.x % 4);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool is_seen = first + column + i <= queries.position[half];
        float s = is_seen ? scores[2 * half + i] * scale : -INFINITY;
        scores[2 * half + i] = s;
        so_far = fmaxf(so_far, s);
    }
    return so_far;
}

/* Among the four lanes that share a query. */
static __device__ __forceinline__ float largest_of_row(float largest)
{
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
    return fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
}

/* What scores are relative to: the largest, or 0 when nothing is seen yet and all weights are zeros. */
static __device__ __forceinline__ float base_of(float largest)
{
    return largest == -INFINITY ? 0.0f : largest;
}

static __device__ __forceinline__ float weight_of(float score, float base)
{
    return rounded<__nv_bfloat16>(expf(score - base));
}

/* The running results are scaled down to the new largest score. */
template <int STEPS, int OWN>
static __device__ __forceinline__ float raise(struct walk<STEPS, OWN> *w, int half, float largest)
{
    float factor = expf(w->largest[half] - base_of(largest));
    w->largest[half] = largest;
    w->sum[half] *= factor;
#pragma unroll
    for (int tile = 0; tile < 2 * OWN; tile++) {
        w->values[tile][2 * half] *= factor;
        w->values[tile][2 * half + 1] *= factor;
    }
    return base_of(largest);
}

/* values += weights v of 16 positions, columns [16 step, 16 step + 16); v: the block, pair: which 16. */
template <int STEPS>
static __device__ __forceinline__ void multiply_values(float near[4], float far[4], const uint32_t p[4],
                                                       const __nv_bfloat16 *v, int pair, int step)
{
    const int lane = (int)(threadIdx.x % LANES);
    uint32_t numbers[4];
    tensor_load_transposed(numbers, v + (16 * pair + lane / 8 % 2 * 8 + lane % 8) * layout<STEPS>::STRIDE + lane / 16 * 8 +
                                        16 * step);
    tensor_mma(near, p, numbers);
    tensor_mma(far, p, numbers + 2);
}

/* ---- apart: one block of K and V for 16 queries of this warp ---- */

template <int STEPS>
static __device__ __forceinline__ void walk_apart(struct walk<STEPS, STEPS> *w, const struct two_queries &queries,
                                                  const __nv_bfloat16 *keys, int first, float scale)
{
    float scores[KEY_TILES][4];
#pragma unroll
    for (int tile = 0; tile < KEY_TILES; tile += 2)
        multiply_keys<STEPS>(&scores[tile], w->q, keys, tile);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = w->largest[half], sum = 0;
#pragma unroll
        for (int tile = 0; tile < KEY_TILES; tile++)
            largest = mask(scores[tile], half, queries, first + 8 * tile, scale, largest);
        float base = raise(w, half, largest_of_row(largest));
#pragma unroll
        for (int tile = 0; tile < KEY_TILES; tile++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                scores[tile][i] = weight_of(scores[tile][i], base);
                sum += scores[tile][i];
            }
        w->sum[half] += sum;
    }
#pragma unroll
    for (int pair = 0; pair < KEY_TILES / 2; pair++) {
        const float *near = scores[2 * pair], *far = scores[2 * pair + 1];
        uint32_t p[4] = {tensor_pair(near[0], near[1]), tensor_pair(near[2], near[3]), tensor_pair(far[0], far[1]),
                         tensor_pair(far[2], far[3])};
#pragma unroll
        for (int step = 0; step < STEPS; step++)
            multiply_values<STEPS>(w->values[2 * step], w->values[2 * step + 1], p, keys + layout<STEPS>::MATRIX, pair,
                                   step);
    }
}

/* ---- together: the same, with the warps' work shared out ---- */

static_assert(2 * QUERY_WARPS == KEY_TILES, "a warp has two tiles of keys");

/* This warp's weights go to `exchange`; all threads call it. */
template <int STEPS>
static __device__ __forceinline__ void weigh_together(struct walk<STEPS, layout<STEPS>::OWN_STEPS> *w,
                                                      const struct two_queries &queries, const __nv_bfloat16 *keys,
                                                      int first, float scale, struct exchange *exchange)
{
    const int lane = (int)(threadIdx.x % LANES), warp = (int)(threadIdx.x / LANES), tile = 2 * warp;
    float scores[2][4];
    multiply_keys<STEPS>(scores, w->q, keys, tile);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = mask(scores[0], half, queries, first + 8 * tile, scale, -INFINITY);
        largest = largest_of_row(mask(scores[1], half, queries, first + 8 * tile + 8, scale, largest));
        if (lane % 4 == 0)
            exchange->largest[warp][lane / 4 + 8 * half] = largest;
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = lane / 4 + 8 * half;
        float largest = w->largest[half];
#pragma unroll
        for (int i = 0; i < QUERY_WARPS; i++)
            largest = fmaxf(largest, exchange->largest[i][row]);
        float base = raise(w, half, largest);
#pragma unroll
        for (int i = 0; i < 2; i++)
            exchange->weights[row][4 * (tile + i) + lane % 4] =
                tensor_pair(weight_of(scores[i][2 * half], base), weight_of(scores[i][2 * half + 1], base));
    }
    __syncthreads();
}

template <int STEPS>
static __device__ __forceinline__ void walk_together(struct walk<STEPS, layout<STEPS>::OWN_STEPS> *w,
                                                     const struct two_queries &queries, const __nv_bfloat16 *keys,
                                                     int first, float scale, struct exchange *exchange)
{
    const int lane = (int)(threadIdx.x % LANES), warp = (int)(threadIdx.x / LANES);
    float sum[2] = {0, 0};
    weigh_together<STEPS>(w, queries, keys, first, scale, exchange);
#pragma unroll
    for (int pair = 0; pair < KEY_TILES / 2; pair++) {
        uint32_t p[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            p[i] = exchange->weights[lane / 4 + 8 * (i % 2)][8 * pair + 4 * (i / 2) + lane % 4];
            sum[i % 2] += tensor_low(p[i]);
            sum[i % 2] += tensor_high(p[i]);
        }
#pragma unroll
        for (int own = 0; own < layout<STEPS>::OWN_STEPS; own++)
            if (warp + QUERY_WARPS * own < STEPS)
                multiply_values<STEPS>(w->values[2 * own], w->values[2 * own + 1], p, keys + layout<STEPS>::MATRIX, pair,
                                       warp + QUERY_WARPS * own);
    }
    w->sum[0] += sum[0];
    w->sum[1] += sum[1];
}

/* ---- a split ---- */

/* Steps first_step, first_step + stride ... of V are this warp's; the first of them writes the rest too. */
template <int STEPS, int OWN>
static __device__ __forceinline__ void write_partials(const struct attention_arguments &a, struct walk<STEPS, OWN> *w,
                                                      const struct row_tile &tile, int first_query, int kv_head,
                                                      int split, int first_step, int stride)
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
        for (int t = 0; t < 2 * OWN; t++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int column = 16 * (first_step + t / 2 * stride) + 8 * (t % 2) + 2 * (lane % 4) + i;
                if (column < d)
                    partial[column] = w->values[t][2 * half + i];
            }
        if (lane % 4 == 0 && first_step == 0) {
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

/* A block of threads: what it works on. */
struct place {
    struct row_tile tile;
    int kv_head, split, first_block, n_blocks, end;
};

/* Block i of K and V, behind it the next one on its way. */
template <int STEPS>
static __device__ __forceinline__ const __nv_bfloat16 *next_keys(const struct attention_arguments &a,
                                                                 const struct place &here, int i, __nv_bfloat16 *buffers)
{
    copy_async_wait<0>();
    __syncthreads(); /* block i is there for all, and nobody reads block i - 1 any more */
    if (i + 1 < here.n_blocks)
        fetch_block<STEPS>(a, here.tile, here.first_block + i + 1, here.kv_head, here.end,
                           buffers + (i + 1) % BUFFERS * 2 * layout<STEPS>::MATRIX);
    return buffers + i % BUFFERS * 2 * layout<STEPS>::MATRIX;
}

template <int STEPS>
static __device__ __forceinline__ void run_apart(const struct attention_arguments &a, const struct place &here,
                                                 __nv_bfloat16 *buffers)
{
    const int first_query = (int)(threadIdx.x / LANES) * 16;
    const bool has_queries = first_query < here.tile.n_rows * (a.n_heads / a.n_kv_heads);
    struct two_queries queries = find_queries(a, here.tile, first_query, here.kv_head);
    struct walk<STEPS, STEPS> w;
    begin(&w, queries, a.head_dim);
    for (int i = 0; i < here.n_blocks; i++) {
        const __nv_bfloat16 *keys = next_keys<STEPS>(a, here, i, buffers);
        if (has_queries)
            walk_apart<STEPS>(&w, queries, keys, (here.first_block + i) * KV_BLOCK_TOKENS, a.scale);
    }
    if (has_queries)
        write_partials(a, &w, here.tile, first_query, here.kv_head, here.split, 0, 1);
}

template <int STEPS>
static __device__ __forceinline__ void run_together(const struct attention_arguments &a, const struct place &here,
                                                    __nv_bfloat16 *buffers, struct exchange *exchange)
{
    struct two_queries queries = find_queries(a, here.tile, 0, here.kv_head);
    struct walk<STEPS, layout<STEPS>::OWN_STEPS> w;
    begin(&w, queries, a.head_dim);
    for (int i = 0; i < here.n_blocks; i++) {
        const __nv_bfloat16 *keys = next_keys<STEPS>(a, here, i, buffers);
        walk_together<STEPS>(&w, queries, keys, (here.first_block + i) * KV_BLOCK_TOKENS, a.scale, exchange);
    }
    write_partials(a, &w, here.tile, 0, here.kv_head, here.split, (int)(threadIdx.x / LANES), QUERY_WARPS);
}

template <int STEPS>
static __global__ void __launch_bounds__(ATTENTION_THREADS) attention_bf16_kernel(struct attention_arguments a)
{
    DYNAMIC_SHARED(shared);
    struct place here;
    here.kv_head = (int)blockIdx.y;
    here.split = (int)blockIdx.z;
    here.tile = a.tiles[blockIdx.x];
    here.end = here.tile.start + here.tile.n_rows;
    here.first_block = here.split * BLOCKS_A_SPLIT;
    if (here.split * KV_SPLIT_TOKENS >= here.end)
        return;
    const int blocks_left = (here.end + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS - here.first_block;
    here.n_blocks = blocks_left < BLOCKS_A_SPLIT ? blocks_left : BLOCKS_A_SPLIT;
    __nv_bfloat16 *buffers = (__nv_bfloat16 *)shared;
    fetch_block<STEPS>(a, here.tile, here.first_block, here.kv_head, here.end, buffers);
    if (here.tile.n_rows * (a.n_heads / a.n_kv_heads) <= 16)
        run_together<STEPS>(a, here, buffers, (struct exchange *)(shared + layout<STEPS>::BUFFER_BYTES));
    else
        run_apart<STEPS>(a, here, buffers);
}

/* More shared memory than kernels have unasked. */
template <int STEPS> static enum status allow_shared(struct cuda_device *cuda)
{
    return cuda_note(cuda,
                     cudaFuncSetAttribute(attention_bf16_kernel<STEPS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                          (int)layout<STEPS>::SHARED_BYTES),
                     "shared memory for attention");
}

enum status attention_prepare_bf16(struct cuda_device *cuda)
{
    enum status st = allow_shared<1>(cuda);
    if (st == STATUS_OK)
        st = allow_shared<2>(cuda);
    if (st == STATUS_OK)
        st = allow_shared<4>(cuda);
    if (st == STATUS_OK)
        st = allow_shared<8>(cuda);
    return st == STATUS_OK ? allow_shared<16>(cuda) : st;
}

template <int STEPS> static enum status launch(struct cuda_device *cuda, const struct attention_arguments *a, dim3 grid)
{
    LAUNCH(attention_bf16_kernel<STEPS>, grid, dim3(ATTENTION_THREADS), (size_t)layout<STEPS>::SHARED_BYTES,
           cuda->stream, *a);
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
