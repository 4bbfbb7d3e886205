/*
 * tile_bf16x2.h - products of f32 numbers with AMX, which multiplies bf16 only.
 *
 * A number is taken as the sum of two bf16, high = bf16(x) and low = bf16(x - high), which keeps 16
 * bits of it; of the four products of two such sums that of the low parts is left out. So a product
 * is off by less than 2^-16 of itself; sums are f32. Source: Henry, Tang, Heinecke, "Leveraging the
 * bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", arXiv 1904.06376.
 * Order: an element of C is one chain over steps of 32 products; its bits do not depend on the rows
 * and columns beside it.
 */
#ifndef MGPT_KERNELS_CPU_TILE_BF16X2_H
#define MGPT_KERNELS_CPU_TILE_BF16X2_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/stream.h"

enum {
    TILE_BF16X2_ROWS = 16, /* of A, at a time */
    TILE_BF16X2_LANE = 16, /* columns of B come in one or two times as many */
    TILE_BF16X2_STEP = 32, /* products over k come in multiples of it */
};

/* Whether this path multiplies so: where it has AMX. */
bool tile_bf16x2_available(enum code_path path);

/* B [k, n] to what multiply() takes, in the same number of bytes; n = 16 or 32. */
void tile_bf16x2_pack(void *to, const float *b, int n, int k);

/* Numbers as two parts, with one stride: those of row r begin at r * stride. */
struct bf16x2_rows {
    const bf16 *high, *low;
    size_t stride;
};

/* A thread brackets its products with these. */
void tile_bf16x2_begin(void);
void tile_bf16x2_end(void);

/* C [m, n] = A [m, k] B [k, n], or += when `add` is true; m is a multiple of TILE_BF16X2_ROWS, rows
 * of C are c_stride floats apart, b is packed. */
void tile_bf16x2_multiply(float *c, size_t c_stride, const struct bf16x2_rows *a, const void *b,
                          int m, int n, int k, bool add);

#endif
