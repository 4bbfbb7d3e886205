/*
 * qk_norm_rope_store.c - the f32 twin, one head after the other.
 */
#include <math.h>

#include "kernels/attention_launch.h"
#include "kernels/kv_layout.h"

/* y = layernorm(x) * weight + bias over one head; y may be x. */
static void layernorm(float *y, const float *x, const float *weight, const float *bias, int n,
                      float eps)
{
    float sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    float mean = sum / (float)n;
    for (int i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(squares / (float)n + eps);
    for (int i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

static void rotate(float *x, const float *angles, int head_dim)
{
    int half = head_dim / 2;
    const float *cosine = angles, *sine = angles + half;
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cosine[i] - b * sine[i];
        x[i + half] = b * cosine[i] + a * sine[i];
    }
}

void store_row_ref(const struct attention_launch *l, const struct store_row *row)
{
    const struct attention_shape *shape = l->shape;
    const int d = shape->head_dim, slot = row->position % KV_BLOCK_TOKENS;
    float *q = (float *)l->qkv + (size_t)row->row * qkv_row_numbers(shape);
    const float *k = q + (size_t)shape->n_heads * (size_t)d,
                *v = k + (size_t)shape->n_kv_heads * (size_t)d;
    const float *angles = l->rope->values + (size_t)row->position * (size_t)d;
    for (int h = 0; h < shape->n_heads; h++) {
        size_t at = (size_t)h * (size_t)d;
        layernorm(q + at, q + at, l->norm->q_weight + at, l->norm->q_bias + at, d, l->norm->eps);
        rotate(q + at, angles, d);
    }
    for (int h = 0; h < shape->n_kv_heads; h++) {
        size_t at = (size_t)h * (size_t)d;
        float turned[HEAD_DIM_MAX];
        layernorm(turned, k + at, l->norm->k_weight + at, l->norm->k_bias + at, d, l->norm->eps);
        rotate(turned, angles, d);
        int32_t block = row->segment->blocks[row->position / KV_BLOCK_TOKENS];
        float *keys = kv_keys_f32(l->kv, shape, block, h),
              *values = kv_values_f32(l->kv, shape, block, h);
        for (int i = 0; i < d; i++) {
            keys[i * KV_BLOCK_TOKENS + slot] = turned[i];
            values[slot * d + i] = v[at + (size_t)i];
        }
    }
}
