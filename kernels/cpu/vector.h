/*
 * vector.h - sixteen numbers at a time, in plain C: the compiler makes of them what each
 * instruction set has.
 *
 * Bodies written with these are compiled once for each code path by FOR_EACH_PATH. Lanes are chosen
 * by masks out of sign bits: the compiler takes comparisons of such vectors apart lane by lane
 * where a path's own vectors are shorter. There a vector also goes through memory wherever two ways
 * meet: so whole vectors have loops of their own, without a condition in them, and what is left at
 * the end comes behind. Products and sums are never fused, and sums over lanes have one fixed
 * order, so that all paths give the same bits.
 */
#ifndef MGPT_KERNELS_CPU_VECTOR_H
#define MGPT_KERNELS_CPU_VECTOR_H

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "kernels/stream.h"

/* Everything here is inlined, so how vectors would be passed to functions does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"

enum { LANES = 16 };

typedef float f32x16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

#define VECTOR_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#define TARGET_AVX2   __attribute__((target("avx2")))
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
/* Defines `static void NAME(enum code_path path, PARAMETERS)`, which runs NAME_body compiled for
 * the path. */
#define FOR_EACH_PATH(name, parameters, arguments)                                                 \
    static void name##_portable parameters                                                         \
    {                                                                                              \
        name##_body arguments;                                                                     \
    }                                                                                              \
    TARGET_AVX2 static void name##_avx2 parameters                                                 \
    {                                                                                              \
        name##_body arguments;                                                                     \
    }                                                                                              \
    TARGET_AVX512 static void name##_avx512 parameters                                             \
    {                                                                                              \
        name##_body arguments;                                                                     \
    }                                                                                              \
    typedef void(*name##_function) parameters;                                                     \
    static name##_function name##_of(enum code_path path)                                          \
    {                                                                                              \
        if (path >= CODE_PATH_AVX512BF16)                                                          \
            return name##_avx512;                                                                  \
        return path == CODE_PATH_AVX2 ? name##_avx2 : name##_portable;                             \
    }
#else
#define FOR_EACH_PATH(name, parameters, arguments)                                                 \
    static void name##_portable parameters                                                         \
    {                                                                                              \
        name##_body arguments;                                                                     \
    }                                                                                              \
    typedef void(*name##_function) parameters;                                                     \
    static name##_function name##_of(enum code_path path)                                          \
    {                                                                                              \
        (void)path;                                                                                \
        return name##_portable;                                                                    \
    }
#endif

typedef float f32x16_anywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t u32x16_anywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16_anywhere __attribute__((vector_size(32), aligned(2), may_alias));

VECTOR_INLINE f32x16 load_f32(const float *x)
{
    return *(const f32x16_anywhere *)x;
}

VECTOR_INLINE void store_f32(float *y, f32x16 v)
{
    *(f32x16_anywhere *)y = v;
}

VECTOR_INLINE u32x16 load_u32(const uint32_t *x)
{
    return *(const u32x16_anywhere *)x;
}

VECTOR_INLINE void store_u32(uint32_t *y, u32x16 v)
{
    *(u32x16_anywhere *)y = v;
}

VECTOR_INLINE f32x16 from_bits(u32x16 bits)
{
    return (f32x16)bits;
}

VECTOR_INLINE u32x16 to_bits(f32x16 v)
{
    return (u32x16)v;
}

/* All ones where the number, taken with its sign, is below zero. */
VECTOR_INLINE u32x16 sign_mask(u32x16 x)
{
    return (u32x16)((i32x16)x >> 31);
}

VECTOR_INLINE f32x16 load_bf16(const bf16 *x)
{
    u16x16 half = *(const u16x16_anywhere *)x;
    return from_bits(__builtin_convertvector(half, u32x16) << 16);
}

/* Sixteen bf16_from_f32(). */
VECTOR_INLINE u16x16 round_bf16(f32x16 v)
{
    u32x16 bits = to_bits(v);
    u32x16 rounded = bits + 0x7fffu + (bits >> 16 & 1u);
    u32x16 nan = sign_mask(0x7f800000u - (bits & 0x7fffffffu));
    rounded = (rounded & ~nan) | ((bits | 0x400000u) & nan);
    return __builtin_convertvector(rounded >> 16, u16x16);
}

VECTOR_INLINE void store_bf16(bf16 *y, f32x16 v)
{
    *(u16x16_anywhere *)y = round_bf16(v);
}

/* Fewer than sixteen: the lanes past n are zero, or are not stored. */
VECTOR_INLINE f32x16 load_part(const void *x, enum dtype dtype, int n)
{
    float values[LANES] = {0};
    for (int i = 0; i < n; i++)
        values[i] = dtype == DTYPE_F32 ? ((const float *)x)[i] : bf16_to_f32(((const bf16 *)x)[i]);
    return load_f32(values);
}

VECTOR_INLINE void store_part(void *y, enum dtype dtype, f32x16 v, int n)
{
    float values[LANES];
    store_f32(values, v);
    for (int i = 0; i < n; i++) {
        if (dtype == DTYPE_F32)
            ((float *)y)[i] = values[i];
        else
            ((bf16 *)y)[i] = bf16_from_f32(values[i]);
    }
}

VECTOR_INLINE f32x16 load_lanes(const void *x, enum dtype dtype, size_t at, int n)
{
    const char *from = (const char *)x + at * dtype_bytes(dtype);
    if (n < LANES)
        return load_part(from, dtype, n);
    return dtype == DTYPE_F32 ? load_f32((const float *)from) : load_bf16((const bf16 *)from);
}

VECTOR_INLINE void store_lanes(void *y, enum dtype dtype, size_t at, f32x16 v, int n)
{
    char *to = (char *)y + at * dtype_bytes(dtype);
    if (n < LANES)
        store_part(to, dtype, v, n);
    else if (dtype == DTYPE_F32)
        store_f32((float *)to, v);
    else
        store_bf16((bf16 *)to, v);
}

/* Whole lines of memory that no cache keeps; n_bytes and both places are multiples of 64. Other
 * threads may read them once this one has passed stored_past_caches(). */
VECTOR_INLINE void store_past_caches(void *to, const void *from, size_t n_bytes)
{
#if defined(__SSE2__)
    for (size_t i = 0; i < n_bytes / sizeof(__m128i); i++)
        _mm_stream_si128((__m128i *)to + i, ((const __m128i *)from)[i]);
#else
    memcpy(to, from, n_bytes);
#endif
}

VECTOR_INLINE void stored_past_caches(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

typedef float f32x8 __attribute__((vector_size(32)));
typedef float f32x4 __attribute__((vector_size(16)));

/* The sum over lanes: halves onto halves. */
VECTOR_INLINE float sum_lanes(f32x16 v)
{
    f32x8 a[2];
    memcpy(a, &v, sizeof(a));
    a[0] += a[1];
    f32x4 b[2];
    memcpy(b, &a[0], sizeof(b));
    b[0] += b[1];
    return (b[0][0] + b[0][2]) + (b[0][1] + b[0][3]);
}

VECTOR_INLINE f32x16 select_lanes(u32x16 mask, f32x16 yes, f32x16 no)
{
    return from_bits((to_bits(yes) & mask) | (to_bits(no) & ~mask));
}

/* All ones in the first n lanes; n may be anything. */
VECTOR_INLINE u32x16 first_lanes(int n)
{
    const i32x16 numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (u32x16)((numbers - n) >> 31);
}

/* Of NaN and a number either may come. */
VECTOR_INLINE f32x16 max_lanes(f32x16 a, f32x16 b)
{
    return select_lanes(sign_mask(to_bits(a - b)), b, a);
}

VECTOR_INLINE float largest_lane(f32x16 v)
{
    f32x16 a = max_lanes(
        v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    a = max_lanes(
        a, __builtin_shufflevector(a, a, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    a = max_lanes(
        a, __builtin_shufflevector(a, a, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    a = max_lanes(
        a, __builtin_shufflevector(a, a, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    return a[0];
}

/*
 * e^x for x <= 88, 0 below -87.7 (where it would be subnormal), within 2 units in the last place;
 * NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite 1980); e^r
 * by a polynomial of degree 6 fitted to the interval; 2^n through the exponent bits.
 */
VECTOR_INLINE f32x16 exp_lanes(f32x16 x)
{
    const float magic = 0x1.8p23f; /* added and taken away it rounds to a whole number */
    const uint32_t far = 0x43480000u, infinity = 0x7f800000u; /* 200 */
    u32x16 size = to_bits(x) & 0x7fffffffu, beyond = size - far;
    u32x16 excess = beyond & ~sign_mask(beyond) & ~sign_mask(infinity - size);
    x = from_bits(to_bits(x) - excess); /* at least -200, or NaN */
    f32x16 shifted = x * 0x1.715476p0f + magic;
    f32x16 n = shifted - magic;
    f32x16 r = x - n * 0x1.62e4p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    f32x16 p = r * 0x1.6850e4p-10f + 0x1.123bccp-7f;
    p = p * r + 0x1.555b98p-5f;
    p = p * r + 0x1.55548ep-3f;
    p = p * r + 0x1.fffff8p-2f;
    p = p * r * r + r + 1.0f;
    u32x16 exponent = to_bits(shifted) - 0x4b400000u + 127u;
    return p * from_bits((exponent & ~sign_mask(exponent - 1u)) << 23);
}

#endif
