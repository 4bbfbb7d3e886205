/*
 * attention.cu - the f32 version (a warp a query), the merge of splits, and the launches of both versions.
 */
#include "kernels/cuda/attention.cuh"

#include <math.h>

enum { ATTENTION_WARPS = 4 };

/* Scratch of a warp: its query, and a score for each position of the split. */
struct warp_scratch {
    float query[HEAD_DIM_MAX], scores[KV_SPLIT_TOKENS];
};

static __device__ __forceinline__ float score(const float *query, const float *key, int d)
{
    float sum = 0;
    for (int i = 0; i < d; i++)
        sum += query[i] * key[i];
    return sum;
}

/* One query over positions [split * 256, split * 256 + n). */
static __device__ void attend(const struct attention_arguments &a, const struct row_tile &tile,
                              const struct row_entry &entry, int head, int kv_head, int split, int n,
                              struct warp_scratch *scratch)
{
    const int lane = (int)(threadIdx.x % LANES), d = a.head_dim;
    const float *q = (const float *)a.qkv + (size_t)entry.row * qkv_row(a) + (size_t)head * (size_t)d;
    for (int i = lane; i < d; i += LANES)
        scratch->query[i] = q[i];
    __syncwarp();
    float largest = -INFINITY, sum = 0;
    for (int j = lane; j < n; j += LANES) {
        const float *keys = (const float *)kv_keys(a, tile, (split * KV_SPLIT_TOKENS + j) / KV_BLOCK_TOKENS, kv_head);
        float s = score(scratch->query, keys + (size_t)(j % KV_BLOCK_TOKENS) * (size_t)d, d) * a.scale;
        scratch->scores[j] = s;
        largest = fmaxf(largest, s);
    }
    largest = warp_max(largest);
    for (int j = lane; j < n; j += LANES) {
        float weight = expf(scratch->scores[j] - largest);
        scratch->scores[j] = weight;
        sum += weight;
    }
    sum = warp_sum(sum);
    __syncwarp();
    float *partial = partial_of(a, entry, head, split);
    for (int i = lane; i < d; i += LANES) {
        float value = 0;
        for (int j = 0; j < n; j++) {
            const char *keys = kv_keys(a, tile, (split * KV_SPLIT_TOKENS + j) / KV_BLOCK_TOKENS, kv_head);
            const float *values = (const float *)(keys + a.kv.value_bytes);
            value += scratch->scores[j] * values[(size_t)(j % KV_BLOCK_TOKENS) * (size_t)d + (size_t)i];
        }
        partial[i] = value;
    }
    if (lane == 0) {
        partial[d] = largest;
        partial[d + 1] = sum;
    }
    __syncwarp();
}

static __global__ void __launch_bounds__(ATTENTION_WARPS *LANES) attention_f32_kernel(struct attention_arguments a)
{
    DYNAMIC_SHARED(shared);
    const int warp = (int)(threadIdx.x / LANES), kv_head = (int)blockIdx.y, split = (int)blockIdx.z;
    const struct row_tile tile = a.tiles[blockIdx.x];
    const int group = a.n_heads / a.n_kv_heads;
    struct warp_scratch *scratch = (struct warp_scratch *)shared + warp;
    for (int query = warp; query < tile.n_rows * group; query += ATTENTION_WARPS) {
        const struct row_entry entry = a.entries[tile.first_entry + query / group];
        int n = entry.position + 1 - split * KV_SPLIT_TOKENS;
        if (n > 0)
            attend(a, tile, entry, kv_head * group + query % group, kv_head, split,
                   n < KV_SPLIT_TOKENS ? n : KV_SPLIT_TOKENS, scratch);
    }
}

/* The largest score of a query, in every lane. */
static __device__ __forceinline__ float largest_of_splits(const struct attention_arguments &a,
                                                          const struct row_entry &entry, int head, int n_splits)
{
    float largest = -INFINITY;
    for (int split = (int)(threadIdx.x % LANES); split < n_splits; split += LANES)
        largest = fmaxf(largest, partial_of(a, entry, head, split)[a.head_dim]);
    return warp_max(largest);
}

/*
 * y = the splits of a query in order, each scaled to the largest score of all; a warp for each head of a row. What the
 * splits weigh is fetched by as many lanes at once, and no fetch waits for another split: a step of one request has
 * little else to hide them behind. entries: of the chunk.
 */
template <class T>
static __global__ void __launch_bounds__(ATTENTION_WARPS *LANES)
    attention_merge_kernel(struct attention_arguments a, const struct row_entry *entries)
{
    const int head = (int)(blockIdx.y * ATTENTION_WARPS + threadIdx.x / LANES), lane = (int)(threadIdx.x % LANES);
    const int d = a.head_dim;
    if (head >= a.n_heads)
        return;
    const struct row_entry entry = entries[blockIdx.x];
    if (entry.row < 0)
        return;
    const int n_splits = entry.position / KV_SPLIT_TOKENS + 1;
    const float largest = largest_of_splits(a, entry, head, n_splits);
    float values[HEAD_DIM_MAX / LANES] = {0}, sum = 0;
    for (int first = 0; first < n_splits; first += LANES) {
        const int n = n_splits - first < LANES ? n_splits - first : LANES;
        const float *mine = partial_of(a, entry, head, lane < n ? first + lane : first);
        const float my_factor = expf(mine[d] - largest), my_sum = mine[d + 1];
#pragma unroll 4
        for (int i = 0; i < n; i++) {
            const float *partial = partial_of(a, entry, head, first + i);
            const float factor = __shfl_sync(0xffffffffu, my_factor, i);
            sum += __shfl_sync(0xffffffffu, my_sum, i) * factor;
#pragma unroll
            for (int j = 0; j < HEAD_DIM_MAX / LANES; j++)
                if (lane + j * LANES < d)
                    values[j] += partial[lane + j * LANES] * factor;
        }
    }
    T *y = (T *)a.y + ((size_t)entry.row * (size_t)a.n_heads + (size_t)head) * (size_t)d;
#pragma unroll
    for (int j = 0; j < HEAD_DIM_MAX / LANES; j++)
        if (lane + j * LANES < d)
            from_f32(&y[lane + j * LANES], values[j] / sum);
}

static enum status run_chunk(struct cuda_device *cuda, struct attention_arguments *a, enum dtype dtype,
                             const struct row_table_view *rows, const struct row_chunk *chunk)
{
    dim3 grid((unsigned)chunk->n_tiles, (unsigned)a->n_kv_heads, (unsigned)chunk->n_splits);
    a->tiles = rows->tiles + chunk->first_tile;
    if (dtype == DTYPE_F32) {
        LAUNCH(attention_f32_kernel, grid, dim3(ATTENTION_WARPS * LANES), ATTENTION_WARPS * sizeof(struct warp_scratch),
               cuda->stream, *a);
    } else {
        enum status st = attention_launch_bf16(cuda, a, grid);
        if (st != STATUS_OK)
            return st;
    }
    dim3 merge_grid((unsigned)chunk->n_entries, blocks_for((size_t)a->n_heads, ATTENTION_WARPS));
    const struct row_entry *entries = rows->entries + chunk->first_entry;
    if (dtype == DTYPE_F32)
        LAUNCH(attention_merge_kernel<float>, merge_grid, dim3(ATTENTION_WARPS * LANES), 0, cuda->stream, *a, entries);
    else
        LAUNCH(attention_merge_kernel<__nv_bfloat16>, merge_grid, dim3(ATTENTION_WARPS * LANES), 0, cuda->stream, *a,
               entries);
    return cuda_launched(cuda, "attention");
}

enum status attention_cuda(struct device *device, const struct attention_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    struct row_table_view rows;
    enum status st = row_table_get(&rows, cuda, l->shape, l->segments, l->n_segments);
    if (st != STATUS_OK)
        return st;
    struct attention_arguments a = {l->y,
                                    l->qkv,
                                    l->shape->n_heads,
                                    l->shape->n_kv_heads,
                                    l->shape->head_dim,
                                    1.0f / sqrtf((float)l->shape->head_dim),
                                    rows.entries,
                                    rows.tiles,
                                    rows.blocks,
                                    kv_place_of(l->kv, l->shape),
                                    cuda->partials};
    for (int i = 0; st == STATUS_OK && i < rows.n_chunks; i++)
        st = run_chunk(cuda, &a, l->shape->dtype, &rows, &rows.chunks[i]);
    return st;
}
