/*
 * spatial_attention.h - every pixel attends to every pixel, one head, f32 (the attention of
 * taming's VQ-GAN).
 *
 * out = softmax(q k^T / sqrt(n_channels)) v, with keys in blocks of SPATIAL_ATTENTION_KEYS and a
 * running maximum: the n x n scores are never stored, only one block for some queries a thread.
 * Numbers: a pixel's result depends on the keys' order and blocks alone, not on threads or on other
 * queries.
 */
#ifndef MGPT_KERNELS_SPATIAL_ATTENTION_H
#define MGPT_KERNELS_SPATIAL_ATTENTION_H

#include <stddef.h>

#include "base/status.h"

struct stream;

enum { SPATIAL_ATTENTION_KEYS = 256 };

/* The keys, transposed; the rest is scratch of the stream's threads. */
size_t spatial_attention_workspace_bytes(int n_pixels, int n_channels);

/*
 * out, q, k, v: [n_pixels, n_channels]; out may be q, and overlaps neither k nor v.
 * STATUS_INVALID: n_channels is no multiple of 16, or n_pixels is below 1.  STATUS_NOMEM: scratch
 * of a thread.
 */
enum status spatial_attention(float *out, const float *q, const float *k, const float *v,
                              int n_pixels, int n_channels, void *workspace, struct stream *stream);

/* The plain twin (ref/spatial_attention.c). scores: [n_pixels] of scratch. */
void spatial_attention_ref(float *out, const float *q, const float *k, const float *v, int n_pixels,
                           int n_channels, float *scores);

#endif
