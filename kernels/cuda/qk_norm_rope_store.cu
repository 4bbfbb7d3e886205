/*
 * qk_norm_rope_store.cu - a warp for each head of each row: norm, turn, and to its place.
 */
#include "kernels/cuda/row_table.cuh"

enum { STORE_WARPS = 4, PAIRS_MAX = HEAD_DIM_MAX / 2 / LANES };

struct store_arguments {
    void *qkv;
    const float *q_weight, *q_bias, *k_weight, *k_bias, *angles;
    float eps;
    int n_heads, n_kv_heads, head_dim;
    const struct row_entry *entries;
    const int32_t *blocks;
    struct kv_place kv;
};

/* Numbers i and i + head_dim / 2 of a head for i = lane, lane + 32, ...: the pairs that RoPE turns. */
struct pairs {
    float low[PAIRS_MAX], high[PAIRS_MAX];
};

template <class T> static __device__ __forceinline__ void load_pairs(struct pairs *p, const T *x, int half, int lane)
{
#pragma unroll
    for (int j = 0; j < PAIRS_MAX; j++) {
        int i = lane + j * LANES;
        p->low[j] = i < half ? to_f32(x[i]) : 0.0f;
        p->high[j] = i < half ? to_f32(x[i + half]) : 0.0f;
    }
}

template <class T> static __device__ __forceinline__ void store_pairs(T *y, const struct pairs *p, int half, int lane)
{
#pragma unroll
    for (int j = 0; j < PAIRS_MAX; j++) {
        int i = lane + j * LANES;
        if (i >= half)
            continue;
        from_f32(&y[i], p->low[j]);
        from_f32(&y[i + half], p->high[j]);
    }
}

/* Mean, then the squares around it, as the twin does. */
static __device__ __forceinline__ void normalise(struct pairs *p, const float *weight, const float *bias, int half,
                                                 int lane, float eps)
{
    float sum = 0, squares = 0, n = (float)(2 * half);
#pragma unroll
    for (int j = 0; j < PAIRS_MAX; j++)
        sum += p->low[j] + p->high[j];
    float mean = warp_sum(sum) / n;
#pragma unroll
    for (int j = 0; j < PAIRS_MAX; j++)
        if (lane + j * LANES < half)
            squares += (p->low[j] - mean) * (p->low[j] - mean) + (p->high[j] - mean) * (p->high[j] - mean);
    float scale = 1.0f / sqrtf(warp_sum(squares) / n + eps);
#pragma unroll
    for (int j = 0; j < PAIRS_MAX; j++) {
        int i = lane + j * LANES;
        if (i >= half)
            continue;
        p->low[j] = (p->low[j] - mean) * scale * weight[i] + bias[i];
        p->high[j] = (p->high[j] - mean) * scale * weight[i + half] + bias[i + half];
    }
}

static __device__ __forceinline__ void turn(struct pairs *p, const float *angles, int half, int lane)
{
#pragma unroll
    for (int j = 0; j < PAIRS_MAX; j++) {
        int i = lane + j * LANES;
        if (i >= half)
            continue;
        float a = p->low[j], b = p->high[j], cosine = angles[i], sine = angles[half + i];
        p->low[j] = a * cosine - b * sine;
        p->high[j] = b * cosine + a * sine;
    }
}

template <class T>
static __global__ void __launch_bounds__(STORE_WARPS *LANES) store_kernel(struct store_arguments a)
{
    const int head = (int)(blockIdx.y * STORE_WARPS + threadIdx.x / LANES), lane = (int)(threadIdx.x % LANES);
    const int d = a.head_dim, half = d / 2, n_stored = a.n_heads + a.n_kv_heads;
    if (head >= n_stored + a.n_kv_heads)
        return;
    const struct row_entry entry = a.entries[blockIdx.x];
    if (entry.row < 0)
        return;
    T *x = (T *)a.qkv + ((size_t)entry.row * (size_t)(n_stored + a.n_kv_heads) + (size_t)head) * (size_t)d;
    struct pairs p;
    load_pairs(&p, x, half, lane);
    const float *angles = a.angles + (size_t)entry.position * (size_t)d;
    if (head < a.n_heads) {
        size_t at = (size_t)head * (size_t)d;
        normalise(&p, a.q_weight + at, a.q_bias + at, half, lane, a.eps);
        turn(&p, angles, half, lane);
        store_pairs(x, &p, half, lane);
        return;
    }
    const bool is_key = head < n_stored;
    const size_t kv_head = (size_t)(is_key ? head - a.n_heads : head - n_stored);
    if (is_key) {
        size_t at = kv_head * (size_t)d;
        normalise(&p, a.k_weight + at, a.k_bias + at, half, lane, a.eps);
        turn(&p, angles, half, lane);
    }
    size_t block = (size_t)a.blocks[entry.blocks + entry.position / KV_BLOCK_TOKENS];
    char *place = a.kv.pool + block * a.kv.block_bytes + kv_head * a.kv.head_bytes + (is_key ? 0 : a.kv.value_bytes);
    store_pairs((T *)place + (size_t)(entry.position % KV_BLOCK_TOKENS) * (size_t)d, &p, half, lane);
}

enum status store_cuda(struct device *device, const struct attention_launch *l)
{
    struct cuda_device *cuda = cuda_of(device);
    struct row_table_view rows;
    enum status st = row_table_get(&rows, cuda, l->shape, l->segments, l->n_segments);
    if (st != STATUS_OK || rows.n_entries == 0)
        return st;
    struct store_arguments a = {l->qkv,
                                l->norm->q_weight,
                                l->norm->q_bias,
                                l->norm->k_weight,
                                l->norm->k_bias,
                                l->rope->values,
                                l->norm->eps,
                                l->shape->n_heads,
                                l->shape->n_kv_heads,
                                l->shape->head_dim,
                                rows.entries,
                                rows.blocks,
                                kv_place_of(l->kv, l->shape)};
    dim3 grid((unsigned)rows.n_entries,
              blocks_for((size_t)l->shape->n_heads + 2 * (size_t)l->shape->n_kv_heads, STORE_WARPS));
    if (l->shape->dtype == DTYPE_F32)
        LAUNCH(store_kernel<float>, grid, dim3(STORE_WARPS * LANES), 0, cuda->stream, a);
    else
        LAUNCH(store_kernel<__nv_bfloat16>, grid, dim3(STORE_WARPS * LANES), 0, cuda->stream, a);
    return cuda_launched(cuda, "qk_norm_rope_store");
}
