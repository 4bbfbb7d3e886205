/*
 * norm_row.c - see norm_row.h.
 */
#include "kernels/cpu/norm_row.h"

#include <string.h>

#include "kernels/cpu/vector.h"

/* exp_lanes() takes no more than 88; there swish is 0 to the last bit that counts: v / (1 + e^88) >
 * -1e-36 v. */
VECTOR_INLINE f32x16 swish_lanes(f32x16 v)
{
    f32x16 limit = (f32x16){0} + 88.0f;
    return v / (1.0f + exp_lanes(select_lanes(-v > limit, limit, -v)));
}

VECTOR_INLINE void normalise_body(float *dst, const float *src, int n_pixels, int n_channels,
                                  const struct conv2d_norm *norm)
{
    for (int p = 0; p < n_pixels; p++, dst += n_channels, src += n_channels)
        for (int c = 0; c < n_channels; c += LANES) {
            f32x16 v = load_f32(src + c) * load_f32(norm->scale + c) + load_f32(norm->shift + c);
            if (norm->swish)
                v = swish_lanes(v);
            store_f32(dst + c, v);
        }
}

FOR_EACH_PATH(normalise,
              (float *dst, const float *src, int n_pixels, int n_channels,
               const struct conv2d_norm *norm),
              (dst, src, n_pixels, n_channels, norm))

void norm_row(float *dst, const float *src, int n_pixels, int n_channels,
              const struct conv2d_norm *norm, enum code_path path)
{
    if (norm)
        normalise_of(path)(dst, src, n_pixels, n_channels, norm);
    else
        memcpy(dst, src, sizeof(float) * n_pixels * n_channels);
}
