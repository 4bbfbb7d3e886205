/*
 * codec_launch.h - the arguments of the picture codec's operations, shared by dispatch
 * (codec_launch.c), the CPU's versions and the device's.
 */
#ifndef MGPT_KERNELS_CODEC_LAUNCH_H
#define MGPT_KERNELS_CODEC_LAUNCH_H

#include "kernels/codebook.h"
#include "kernels/conv2d_weight.h"
#include "kernels/group_norm.h"
#include "kernels/spatial_attention.h"
#include "kernels/stream.h"

struct conv2d_launch {
    float *y;
    const float *x;
    const struct conv2d_weight *weight;
    const struct conv2d_norm *norm; /* NULL: x as it is */
    const float *residual;          /* NULL: none */
    int width, height;              /* of x */
};

/* Of a channel over some pixels. */
struct group_norm_moments {
    double mean, squares; /* squares: the sum of (x - mean)^2 */
};

struct group_norm_launch {
    float *scale, *shift;
    const float *x, *weight, *bias;
    int n_pixels, n_channels, n_groups;
    float eps;
    struct group_norm_moments *parts; /* [n_parts, n_channels] of the workspace */
    int n_parts;                      /* by the number of pixels alone */
};

struct spatial_attention_launch {
    float *out;
    const float *q, *k, *v;
    float *keys; /* the workspace: k transposed */
    int n_pixels, n_channels;
    float scale;
};

/*
 * Entries lie in panels [n_dims, TILE_F32_COLUMNS] like the weights of conv2d; the last panel is
 * filled up with entries that no vector can prefer (their square is infinite).
 */
struct codebook {
    struct stream *stream; /* whose memory it is */
    int n_codes, n_dims, n_panels;
    size_t bytes;
    float *panels;  /* [n_panels, n_dims, TILE_F32_COLUMNS] */
    float *squares; /* [n_panels * TILE_F32_COLUMNS] |e|^2; infinite beyond n_codes */
};

enum status conv2d_cpu(const struct conv2d_launch *launch, struct stream *stream);
enum status group_norm_cpu(const struct group_norm_launch *launch, struct stream *stream);
enum status spatial_attention_cpu(const struct spatial_attention_launch *launch,
                                  struct stream *stream);
enum status codebook_nearest_cpu(int32_t *codes, const float *z, const struct codebook *codebook,
                                 int n, struct stream *stream);
void codebook_lookup_cpu(float *z, const int32_t *codes, const struct codebook *codebook, int n);

#endif
