/*
 * codec_launch.c - the picture codec's operations: checked here, done by the stream's device.
 */
#include "kernels/codec_launch.h"

#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "kernels/cpu/tile_f32.h"
#include "kernels/device.h"

enum { CHANNELS_AT_ONCE = 16, PART_PIXELS_MIN = 256 };

enum status conv2d(float *y, const float *x, const struct conv2d_weight *weight,
                   const struct conv2d_norm *norm, const float *residual, int width, int height,
                   struct stream *stream)
{
    const struct conv2d_shape *shape = &weight->shape;
    struct device *device = stream_device(stream);
    if (width < 1 || height < 1 || (norm && shape->n_in % CHANNELS_AT_ONCE))
        return STATUS_INVALID;
    if (shape->kind == CONV2D_DOWN && (width % 2 || height % 2))
        return STATUS_INVALID;
    struct conv2d_launch launch = {y, x, weight, norm, residual, width, height};
    return device ? device->operations->conv2d(device, &launch) : conv2d_cpu(&launch, stream);
}

static int count_parts(int n_pixels)
{
    int parts = (n_pixels + PART_PIXELS_MIN - 1) / PART_PIXELS_MIN;
    return parts < GROUP_NORM_PARTS ? parts : GROUP_NORM_PARTS;
}

size_t group_norm_workspace_bytes(int n_channels)
{
    return sizeof(struct group_norm_moments) * GROUP_NORM_PARTS * n_channels;
}

enum status group_norm(float *scale, float *shift, const float *x, const float *weight,
                       const float *bias, int n_pixels, int n_channels, int n_groups, float eps,
                       void *workspace, struct stream *stream)
{
    struct device *device = stream_device(stream);
    if (n_pixels < 1 || n_groups < 1 || n_channels < 1 || n_channels % n_groups ||
        n_channels % CHANNELS_AT_ONCE)
        return STATUS_INVALID;
    struct group_norm_launch launch = {scale,
                                       shift,
                                       x,
                                       weight,
                                       bias,
                                       n_pixels,
                                       n_channels,
                                       n_groups,
                                       eps,
                                       workspace,
                                       count_parts(n_pixels)};
    return device ? device->operations->group_norm(device, &launch)
                  : group_norm_cpu(&launch, stream);
}

static int count_panels(int n)
{
    return (n + TILE_F32_COLUMNS - 1) / TILE_F32_COLUMNS;
}

size_t spatial_attention_workspace_bytes(int n_pixels, int n_channels)
{
    return sizeof(float) * count_panels(n_pixels) * TILE_F32_COLUMNS * n_channels;
}

enum status spatial_attention(float *out, const float *q, const float *k, const float *v,
                              int n_pixels, int n_channels, void *workspace, struct stream *stream)
{
    struct device *device = stream_device(stream);
    if (n_pixels < 1 || n_channels < 1 || n_channels % CHANNELS_AT_ONCE)
        return STATUS_INVALID;
    struct spatial_attention_launch launch = {
        out, q, k, v, workspace, n_pixels, n_channels, 1.0f / sqrtf((float)n_channels)};
    return device ? device->operations->spatial_attention(device, &launch)
                  : spatial_attention_cpu(&launch, stream);
}

/* ---- the codebook ---- */

/* memory: [n_panels, n_dims, TILE_F32_COLUMNS], then the squares; zeros so far. */
static void pack_entries(const struct codebook *codebook, float *memory, const float *entries)
{
    float *squares = memory + (codebook->squares - codebook->panels);
    size_t panel_floats = (size_t)codebook->n_dims * TILE_F32_COLUMNS;
    for (int code = 0; code < codebook->n_panels * TILE_F32_COLUMNS; code++) {
        float *to = memory + code / TILE_F32_COLUMNS * panel_floats + code % TILE_F32_COLUMNS;
        const float *entry = entries + (size_t)code * codebook->n_dims;
        double square = 0;
        for (int d = 0; code < codebook->n_codes && d < codebook->n_dims; d++) {
            to[(size_t)d * TILE_F32_COLUMNS] = entry[d];
            square += (double)entry[d] * entry[d];
        }
        squares[code] = code < codebook->n_codes ? (float)square : INFINITY;
    }
}

enum status codebook_create(struct codebook **out, const float *entries, int n_codes, int n_dims,
                            struct stream *stream, struct error *err)
{
    *out = NULL;
    if (n_codes < 1 || n_dims < 1)
        return error_set(err, STATUS_INVALID, "codebook of %d entries of %d numbers", n_codes,
                         n_dims);
    struct codebook *codebook = calloc(1, sizeof(*codebook));
    if (!codebook)
        return error_set(err, STATUS_NOMEM, "cannot allocate the header of the codebook");
    codebook->stream = stream;
    codebook->n_codes = n_codes;
    codebook->n_dims = n_dims;
    codebook->n_panels = count_panels(n_codes);
    size_t panel_floats = (size_t)codebook->n_panels * n_dims * TILE_F32_COLUMNS;
    codebook->bytes =
        sizeof(float) * (panel_floats + (size_t)codebook->n_panels * TILE_F32_COLUMNS);
    float *packed = calloc(1, codebook->bytes);
    enum status st = packed ? STATUS_OK : error_set(err, STATUS_NOMEM, "no memory to pack it in");
    if (st == STATUS_OK)
        st = stream_alloc(stream, (void **)&codebook->panels, codebook->bytes, err);
    if (st == STATUS_OK) {
        codebook->squares = codebook->panels + panel_floats;
        pack_entries(codebook, packed, entries);
        stream_upload(stream, codebook->panels, packed, codebook->bytes);
        *out = codebook;
    } else {
        codebook_destroy(codebook);
        error_wrap(err, st, "cannot pack a codebook of %d entries", n_codes);
    }
    free(packed);
    return st;
}

void codebook_destroy(struct codebook *codebook)
{
    if (!codebook)
        return;
    stream_free(codebook->stream, codebook->panels, codebook->bytes);
    free(codebook);
}

size_t codebook_bytes(const struct codebook *codebook)
{
    return codebook->bytes;
}

enum status codebook_nearest(int32_t *codes, const float *z, const struct codebook *codebook, int n,
                             struct stream *stream)
{
    struct device *device = stream_device(stream);
    return device ? device->operations->codebook_nearest(device, codes, z, codebook, n)
                  : codebook_nearest_cpu(codes, z, codebook, n, stream);
}

enum status codebook_lookup(float *z, const int32_t *codes, const struct codebook *codebook, int n,
                            struct stream *stream)
{
    struct device *device = stream_device(stream);
    for (int i = 0; i < n; i++) {
        CHECK(codes[i] >= 0);
        CHECK(codes[i] < codebook->n_codes);
    }
    if (device)
        return device->operations->codebook_lookup(device, z, codes, codebook, n);
    codebook_lookup_cpu(z, codes, codebook, n);
    return STATUS_OK;
}
