/*
 * vector_f32.h - exp of sixteen floats at a time, in the compiler's vectors.
 *
 * Inlined into callers that are compiled for one instruction set each (attribute target): the same
 * source then becomes AVX-512, AVX2 or plain SSE. No product is fused, so all paths give the same
 * bits.
 */
#ifndef MGPT_KERNELS_CPU_VECTOR_F32_H
#define MGPT_KERNELS_CPU_VECTOR_F32_H

#include <stdint.h>

enum { VECTOR_F32_LANES = 16 };

/* may_alias and aligned(4): they are laid over rows of plain floats. */
typedef float f32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4), may_alias));

union vector_bits {
    f32x16 real;
    u32x16 bits;
};

#define VECTOR_F32_INLINE static inline __attribute__((always_inline))

/* Where mask is all ones *then, where it is zero *otherwise. */
VECTOR_F32_INLINE void vector_select(f32x16 *out, const u32x16 *mask, const f32x16 *then,
                                     const f32x16 *otherwise)
{
    union vector_bits a = {.real = *then}, b = {.real = *otherwise};
    a.bits = (a.bits & *mask) | (b.bits & ~*mask);
    *out = a.real;
}

/*
 * *y = exp(*x), relative error below 2e-7; below -87 and above 88 the value at that limit; NaN
 * stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2, exp(r) by its Taylor polynomial of degree 7
 * (error 5e-9), 2^n by exponent bits. Functions pass vectors by address: by value they would have
 * another calling convention on each path.
 */
VECTOR_F32_INLINE void vector_exp(f32x16 *y, const f32x16 *x)
{
    const float shifter =
        0x1.8p23f; /* adding it rounds to an integer, which lands in the low bits */
    const float ln2_high = 0x1.62e4p-1f;   /* few bits, so that n times it is exact */
    const float ln2_low = 0x1.7f7d1cp-20f; /* the rest of ln 2 */
    f32x16 v = *x, high = (f32x16){0} + 88.0f, low = (f32x16){0} - 87.0f;
    u32x16 above = (u32x16)(v > high), below = (u32x16)(v < low);
    vector_select(&v, &above, &high, &v);
    vector_select(&v, &below, &low, &v);
    union vector_bits shifted = {.real = v * 0x1.715476p0f + shifter};
    f32x16 n = shifted.real - shifter;
    f32x16 r = (v - n * ln2_high) - n * ln2_low;
    f32x16 p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union vector_bits power = {.bits = (shifted.bits << 23) + 0x3f800000};
    *y = p * power.real;
}

#endif
