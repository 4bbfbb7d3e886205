/*
 * group_norm.h - GroupNorm of a picture as one scale and one shift a channel, f32.
 *
 * The norm itself is y = (x - mean) / sqrt(variance + eps) * weight + bias, with mean and variance
 * over the pixels and channels of a group (Wu and He 2018, arXiv 1803.08494). That is x * scale +
 * shift for each channel; conv2d() applies it while it reads x, so x is read once here and no
 * normalised picture is stored. Numbers: pixels are cut into at most GROUP_NORM_PARTS parts by
 * their number alone; means and squares are centred within small runs and merged in order in f64.
 * The number of threads changes nothing.
 */
#ifndef MGPT_KERNELS_GROUP_NORM_H
#define MGPT_KERNELS_GROUP_NORM_H

#include <stddef.h>

#include "base/status.h"

struct stream;

enum { GROUP_NORM_PARTS = 64 };

size_t group_norm_workspace_bytes(int n_channels);

/*
 * scale, shift: [n_channels].  x: [n_pixels, n_channels].  weight, bias: [n_channels].
 * STATUS_INVALID: n_channels is no multiple of n_groups and of 16, or n_pixels is below 1.
 */
enum status group_norm(float *scale, float *shift, const float *x, const float *weight,
                       const float *bias, int n_pixels, int n_channels, int n_groups, float eps,
                       void *workspace, struct stream *stream);

/* The plain twin (ref/group_norm.c): two passes in f64. */
void group_norm_ref(float *scale, float *shift, const float *x, const float *weight,
                    const float *bias, int n_pixels, int n_channels, int n_groups, float eps);

#endif
