/*
 * tile_f32.h - the inner product of all f32 kernels of the codec: C (+)= A B on a tile that lies in
 * the caches.
 *
 * In:      A rows with a stride (pixels of a patch), B as panels of packed weights.   Out: C in the
 * caller's scratch. Order:   every element of C is one chain of products over k, first to last,
 * whatever rows and columns are computed beside it; so results do not depend on how the caller cuts
 * its work. The chain is fused (FMA) on AVX-512 and AVX2 and not on portable code: code paths
 * differ in the last bits. Threads: pure.
 */
#ifndef MGPT_KERNELS_CPU_TILE_F32_H
#define MGPT_KERNELS_CPU_TILE_F32_H

#include <stdbool.h>
#include <stddef.h>

struct stream;

enum {
    TILE_F32_COLUMNS = 32, /* of a full panel of B */
    TILE_F32_LANE = 16,    /* columns come in multiples of this; the last panel may be so narrow */
};

/* C [m, n] (+)= A [m, k] B [k, n], one call for m up to tile_f32_rows_max and n = 16 or 32. */
typedef void (*tile_f32_kernel)(float *c, ptrdiff_t c_stride, const float *a, ptrdiff_t a_stride,
                                const float *b, ptrdiff_t b_stride, int k, bool add);

struct tile_f32 {
    int rows_max;                  /* rows one kernel call takes */
    const tile_f32_kernel *narrow; /* [rows - 1] for n = 16 */
    const tile_f32_kernel *wide;   /* [rows - 1] for n = 32 */
};

/* The kernels of the stream's code path. */
const struct tile_f32 *tile_f32_of(const struct stream *stream);

/*
 * C [m, n] = A [m, k] B [k, n], or += when `add` is true; any m, n = 16 or 32. Strides are in
 * floats. m is cut into nearly equal calls of at most rows_max rows.
 */
void tile_f32_multiply(const struct tile_f32 *tile, float *c, ptrdiff_t c_stride, const float *a,
                       ptrdiff_t a_stride, const float *b, ptrdiff_t b_stride, int m, int n, int k,
                       bool add);

#endif
