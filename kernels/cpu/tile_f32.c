/*
 * tile_f32.c - register-blocked kernels for AVX-512, AVX2 and portable vectors, one for each number
 * of rows.
 *
 * A kernel keeps its part of C in registers while it walks k: one vector load of B a column vector
 * and one broadcast of A a row feed rows * vectors products. 12 x 2 vectors of AVX-512 (24 of 32
 * registers) and 6 x 2 of AVX2 (12 of 16) leave room for B and hide the latency of FMA.
 */
#include "kernels/cpu/tile_f32.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/check.h"
#include "kernels/stream.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define COUNT(array)  (int)(sizeof(array) / sizeof((array)[0]))

#define ARGUMENTS                                                                                  \
    float *c, ptrdiff_t c_stride, const float *a, ptrdiff_t a_stride, const float *b,              \
        ptrdiff_t b_stride, int k, bool add
#define PASS c, c_stride, a, a_stride, b, b_stride, k, add

#if defined(__x86_64__)

enum { AVX512_ROWS = 12, AVX2_ROWS = 6 };

/* rows and vectors are constants at every call, so the arrays become registers. */
__attribute__((target("avx512f"))) static ALWAYS_INLINE void
avx512_body(const int rows, const int vectors, ARGUMENTS)
{
    __m512 sum[AVX512_ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[r][v] = add ? _mm512_loadu_ps(c + r * c_stride + 16 * v) : _mm512_setzero_ps();
    for (int i = 0; i < k; i++, b += b_stride, a++) {
        __m512 column[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            column[v] = _mm512_loadu_ps(b + 16 * v);
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++) {
            __m512 x = _mm512_set1_ps(a[r * a_stride]);
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                sum[r][v] = _mm512_fmadd_ps(x, column[v], sum[r][v]);
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_ps(c + r * c_stride + 16 * v, sum[r][v]);
}

__attribute__((target("avx2,fma"))) static ALWAYS_INLINE void avx2_body(const int rows, ARGUMENTS)
{
    __m256 sum[AVX2_ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++)
            sum[r][v] = add ? _mm256_loadu_ps(c + r * c_stride + 8 * v) : _mm256_setzero_ps();
    for (int i = 0; i < k; i++, b += b_stride, a++) {
        __m256 low = _mm256_loadu_ps(b), high = _mm256_loadu_ps(b + 8);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            __m256 x = _mm256_broadcast_ss(a + r * a_stride);
            sum[r][0] = _mm256_fmadd_ps(x, low, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(x, high, sum[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++)
            _mm256_storeu_ps(c + r * c_stride + 8 * v, sum[r][v]);
}

#define AVX512_KERNEL(rows)                                                                        \
    __attribute__((target("avx512f"))) static void avx512_narrow_##rows(ARGUMENTS)                 \
    {                                                                                              \
        avx512_body(rows, 1, PASS);                                                                \
    }                                                                                              \
    __attribute__((target("avx512f"))) static void avx512_wide_##rows(ARGUMENTS)                   \
    {                                                                                              \
        avx512_body(rows, 2, PASS);                                                                \
    }
AVX512_KERNEL(1)
AVX512_KERNEL(2)
AVX512_KERNEL(3)
AVX512_KERNEL(4)
AVX512_KERNEL(5)
AVX512_KERNEL(6)
AVX512_KERNEL(7)
AVX512_KERNEL(8)
AVX512_KERNEL(9)
AVX512_KERNEL(10)
AVX512_KERNEL(11)
AVX512_KERNEL(12)

static const tile_f32_kernel avx512_narrow[] = {
    avx512_narrow_1, avx512_narrow_2,  avx512_narrow_3,  avx512_narrow_4,
    avx512_narrow_5, avx512_narrow_6,  avx512_narrow_7,  avx512_narrow_8,
    avx512_narrow_9, avx512_narrow_10, avx512_narrow_11, avx512_narrow_12,
};
static const tile_f32_kernel avx512_wide[] = {
    avx512_wide_1, avx512_wide_2, avx512_wide_3, avx512_wide_4,  avx512_wide_5,  avx512_wide_6,
    avx512_wide_7, avx512_wide_8, avx512_wide_9, avx512_wide_10, avx512_wide_11, avx512_wide_12,
};
static const struct tile_f32 avx512_tile = {COUNT(avx512_wide), avx512_narrow, avx512_wide};

/* Two passes of 16 columns: 32 would leave four rows for sixteen registers. */
#define AVX2_KERNEL(rows)                                                                          \
    __attribute__((target("avx2,fma"))) static void avx2_narrow_##rows(ARGUMENTS)                  \
    {                                                                                              \
        avx2_body(rows, PASS);                                                                     \
    }                                                                                              \
    __attribute__((target("avx2,fma"))) static void avx2_wide_##rows(ARGUMENTS)                    \
    {                                                                                              \
        avx2_body(rows, PASS);                                                                     \
        avx2_body(rows, c + 16, c_stride, a, a_stride, b + 16, b_stride, k, add);                  \
    }
AVX2_KERNEL(1)
AVX2_KERNEL(2)
AVX2_KERNEL(3)
AVX2_KERNEL(4)
AVX2_KERNEL(5)
AVX2_KERNEL(6)

static const tile_f32_kernel avx2_narrow[] = {
    avx2_narrow_1, avx2_narrow_2, avx2_narrow_3, avx2_narrow_4, avx2_narrow_5, avx2_narrow_6,
};
static const tile_f32_kernel avx2_wide[] = {
    avx2_wide_1, avx2_wide_2, avx2_wide_3, avx2_wide_4, avx2_wide_5, avx2_wide_6,
};
static const struct tile_f32 avx2_tile = {COUNT(avx2_wide), avx2_narrow, avx2_wide};

#endif

/* Vectors of the compiler: four floats are a register of every 64-bit machine. */
typedef float f32x4 __attribute__((vector_size(16), aligned(4), may_alias));

enum { PORTABLE_ROWS = 3 };

static ALWAYS_INLINE void portable_body(const int rows, ARGUMENTS)
{
    f32x4 sum[PORTABLE_ROWS][4];
#pragma GCC unroll 3
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            sum[r][v] = add ? *(const f32x4 *)(c + r * c_stride + 4 * v) : (f32x4){0};
    for (int i = 0; i < k; i++, b += b_stride, a++) {
#pragma GCC unroll 3
        for (int r = 0; r < rows; r++) {
            float x = a[r * a_stride];
#pragma GCC unroll 4
            for (int v = 0; v < 4; v++)
                sum[r][v] += x * *(const f32x4 *)(b + 4 * v);
        }
    }
#pragma GCC unroll 3
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++)
            *(f32x4 *)(c + r * c_stride + 4 * v) = sum[r][v];
}

#define PORTABLE_KERNEL(rows)                                                                      \
    static void portable_narrow_##rows(ARGUMENTS)                                                  \
    {                                                                                              \
        portable_body(rows, PASS);                                                                 \
    }                                                                                              \
    static void portable_wide_##rows(ARGUMENTS)                                                    \
    {                                                                                              \
        portable_body(rows, PASS);                                                                 \
        portable_body(rows, c + 16, c_stride, a, a_stride, b + 16, b_stride, k, add);              \
    }
PORTABLE_KERNEL(1)
PORTABLE_KERNEL(2)
PORTABLE_KERNEL(3)

static const tile_f32_kernel portable_narrow[] = {
    portable_narrow_1,
    portable_narrow_2,
    portable_narrow_3,
};
static const tile_f32_kernel portable_wide[] = {
    portable_wide_1,
    portable_wide_2,
    portable_wide_3,
};
static const struct tile_f32 portable_tile = {COUNT(portable_wide), portable_narrow, portable_wide};

void tile_f32_multiply(const struct tile_f32 *tile, float *c, ptrdiff_t c_stride, const float *a,
                       ptrdiff_t a_stride, const float *b, ptrdiff_t b_stride, int m, int n, int k,
                       bool add)
{
    CHECK(n == TILE_F32_LANE || n == TILE_F32_COLUMNS);
    const tile_f32_kernel *kernels = n == TILE_F32_LANE ? tile->narrow : tile->wide;
    int calls = (m + tile->rows_max - 1) / tile->rows_max;
    for (int i = 0, row = 0; i < calls; i++) {
        int rows = (m - row) / (calls - i);
        kernels[rows - 1](c + row * c_stride, c_stride, a + row * a_stride, a_stride, b, b_stride,
                          k, add);
        row += rows;
    }
}

const struct tile_f32 *tile_f32_of(const struct stream *stream)
{
    switch (stream_code_path(stream)) {
#if defined(__x86_64__)
    case CODE_PATH_AMX:
    case CODE_PATH_AVX512BF16:
        return &avx512_tile;
    case CODE_PATH_AVX2:
        return &avx2_tile;
#endif
    default:
        return &portable_tile;
    }
}
