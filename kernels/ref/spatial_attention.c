/*
 * spatial_attention.c - the plain twin of kernels/spatial_attention.h: one query at a time, all
 * scores stored.
 */
#include "kernels/spatial_attention.h"

#include <math.h>

static float dot(const float *a, const float *b, int n)
{
    float sum = 0.0f;
    for (int i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

void spatial_attention_ref(float *out, const float *q, const float *k, const float *v, int n_pixels,
                           int n_channels, float *scores)
{
    float scale = 1.0f / sqrtf((float)n_channels);
    for (int p = 0; p < n_pixels; p++) {
        float highest = -INFINITY, total = 0.0f;
        for (int i = 0; i < n_pixels; i++) {
            scores[i] =
                dot(q + (size_t)p * n_channels, k + (size_t)i * n_channels, n_channels) * scale;
            highest = fmaxf(highest, scores[i]);
        }
        for (int i = 0; i < n_pixels; i++) {
            scores[i] = expf(scores[i] - highest);
            total += scores[i];
        }
        for (int c = 0; c < n_channels; c++) {
            float sum = 0.0f;
            for (int i = 0; i < n_pixels; i++)
                sum += scores[i] * v[(size_t)i * n_channels + c];
            out[(size_t)p * n_channels + c] = sum / total;
        }
    }
}
