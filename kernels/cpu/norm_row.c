/*
 * norm_row.c - one body, compiled for each instruction set.
 */
#include "kernels/cpu/norm_row.h"

#include <string.h>

#include "kernels/cpu/vector_f32.h"

VECTOR_F32_INLINE void normalise(float *dst, const float *src, int n_pixels, int n_channels,
                                 const struct conv2d_norm *norm)
{
    for (int p = 0; p < n_pixels; p++, dst += n_channels, src += n_channels)
        for (int c = 0; c < n_channels; c += VECTOR_F32_LANES)
            *(f32x16 *)(dst + c) = *(const f32x16 *)(src + c) * *(const f32x16 *)(norm->scale + c) +
                                   *(const f32x16 *)(norm->shift + c);
}

VECTOR_F32_INLINE void normalise_swish(float *dst, const float *src, int n_pixels, int n_channels,
                                       const struct conv2d_norm *norm)
{
    for (int p = 0; p < n_pixels; p++, dst += n_channels, src += n_channels)
        for (int c = 0; c < n_channels; c += VECTOR_F32_LANES) {
            f32x16 v = *(const f32x16 *)(src + c) * *(const f32x16 *)(norm->scale + c) +
                       *(const f32x16 *)(norm->shift + c);
            f32x16 e = -v;
            vector_exp(&e, &e);
            *(f32x16 *)(dst + c) = v / (1.0f + e);
        }
}

#define NORM_ROW(path, attribute)                                                                  \
    attribute static void norm_row_##path(float *dst, const float *src, int n_pixels,              \
                                          int n_channels, const struct conv2d_norm *norm)          \
    {                                                                                              \
        if (norm->swish)                                                                           \
            normalise_swish(dst, src, n_pixels, n_channels, norm);                                 \
        else                                                                                       \
            normalise(dst, src, n_pixels, n_channels, norm);                                       \
    }
NORM_ROW(portable, )
#if defined(__x86_64__)
NORM_ROW(avx2, __attribute__((target("avx2"))))
NORM_ROW(avx512, __attribute__((target("avx512f"))))
#endif

void norm_row(float *dst, const float *src, int n_pixels, int n_channels,
              const struct conv2d_norm *norm, enum code_path path)
{
    if (!norm) {
        memcpy(dst, src, sizeof(float) * n_pixels * n_channels);
        return;
    }
#if defined(__x86_64__)
    if (path >= CODE_PATH_AVX512BF16) {
        norm_row_avx512(dst, src, n_pixels, n_channels, norm);
        return;
    }
    if (path == CODE_PATH_AVX2) {
        norm_row_avx2(dst, src, n_pixels, n_channels, norm);
        return;
    }
#endif
    (void)path;
    norm_row_portable(dst, src, n_pixels, n_channels, norm);
}
