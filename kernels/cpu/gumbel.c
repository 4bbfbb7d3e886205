/*
 * gumbel.c - guidance, the k-th largest logit, and the noise of gumbel_formula.h on vectors of
 * eight 64-bit lanes.
 */
#include "kernels/cpu/gumbel.h"

#include <float.h>
#include <math.h>

#include "kernels/cpu/vector.h"

typedef double f64x8 __attribute__((vector_size(64)));
typedef uint64_t u64x8 __attribute__((vector_size(64)));
typedef uint32_t u32x8 __attribute__((vector_size(32)));

enum { WIDE = 8 };

#define GUMBEL_F64    f64x8
#define GUMBEL_U64    u64x8
#define GUMBEL_INLINE VECTOR_INLINE
#include "kernels/gumbel_formula.h"

/* 64-bit products of such vectors are taken apart for AVX2; what SSE2 gets is a third faster. */
static enum code_path wide_path(enum code_path path)
{
    return path == CODE_PATH_AVX2 ? CODE_PATH_PORTABLE : path;
}

VECTOR_INLINE u64x8 wide_ids(const int32_t *ids)
{
    u32x8 narrow;
    memcpy(&narrow, ids, sizeof(narrow));
    return __builtin_convertvector(narrow, u64x8);
}

VECTOR_INLINE void gumbel_eight(double *noise, const int32_t *ids, const struct gumbel_place *place)
{
    f64x8 g = gumbel_noise(wide_ids(ids), place);
    memcpy(noise, &g, sizeof(g));
}

VECTOR_INLINE void sixteen_body(double *noise, const int32_t *ids, const struct gumbel_place *place)
{
    gumbel_eight(noise, ids, place);
    gumbel_eight(noise + WIDE, ids + WIDE, place);
}

FOR_EACH_PATH(sixteen, (double *noise, const int32_t *ids, const struct gumbel_place *place),
              (noise, ids, place))

gumbel_function gumbel_of(enum code_path path)
{
    return sixteen_of(wide_path(path));
}

/*
 * -log(-log(u)) <= -log(1 - u), as -log(u) >= 1 - u; and with 1 - u = 2^e (1 + m), e + m <=
 * log2(1 - u). Read as a whole number, the bits of a float are e + m, but for scale and shift.
 */
VECTOR_INLINE void bound_sixteen(float *bounds, const float *logits, const int32_t *ids,
                                 float inverse_temperature, const struct gumbel_place *place)
{
    i32x16 bits;
    for (int half = 0; half < 2; half++) {
        u64x8 wide = gumbel_bits(wide_ids(ids + half * WIDE), place);
        u32x8 narrow = __builtin_convertvector(wide, u32x8);
        memcpy((char *)&bits + (size_t)half * sizeof(narrow), &narrow, sizeof(narrow));
    }
    f32x16 rest = 16777215.5f - __builtin_convertvector(bits, f32x16);
    u32x16 rest_bits = to_bits(rest * 0x1p-24f);
    f32x16 log2_rest =
        __builtin_convertvector((i32x16)(rest_bits - 0x3f800000u), f32x16) * 0x1p-23f;
    f32x16 x = max_lanes(load_f32(logits) * inverse_temperature, (f32x16){0} - FLT_MAX);
    f32x16 size = from_bits(to_bits(x) & 0x7fffffffu);
    /* The last part is more than what all roundings take away. */
    store_f32(bounds, x - log2_rest * 0.693147181f + (size + 32.0f) * 0x1p-21f);
}

VECTOR_INLINE void bounds_body(float *bounds, const float *logits, const int32_t *ids, int n,
                               float inverse_temperature, const struct gumbel_place *place)
{
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        bound_sixteen(bounds + i, logits + i, ids + i, inverse_temperature, place);
    if (i == n)
        return;
    float part[LANES] = {0}, last[LANES];
    int32_t last_ids[LANES] = {0};
    memcpy(part, logits + i, (size_t)(n - i) * sizeof(part[0]));
    memcpy(last_ids, ids + i, (size_t)(n - i) * sizeof(last_ids[0]));
    bound_sixteen(last, part, last_ids, inverse_temperature, place);
    memcpy(bounds + i, last, (size_t)(n - i) * sizeof(last[0]));
}
FOR_EACH_PATH(bounds,
              (float *bounds, const float *logits, const int32_t *ids, int n,
               float inverse_temperature, const struct gumbel_place *place),
              (bounds, logits, ids, n, inverse_temperature, place))

bound_function bound_of(enum code_path path)
{
    return bounds_of(wide_path(path));
}

/* Whole numbers in the order of the floats, and back. */
VECTOR_INLINE uint32_t order_key(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

VECTOR_INLINE float float_of_key(uint32_t key)
{
    uint32_t bits = key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* How many are not below t. Of two equal infinities it may say that one is below: then t comes out
 * lower than need be, which changes no draw. */
VECTOR_INLINE int count_reaching(const float *x, int n, float t)
{
    u32x16 below = {0};
    int i = 0, n_below = 0;
    for (; i + LANES <= n; i += LANES)
        below += to_bits(load_f32(x + i) - t) >> 31;
    for (int lane = 0; lane < LANES; lane++)
        n_below += (int)below[lane];
    for (; i < n; i++)
        n_below += x[i] < t;
    return n - n_below;
}

/* Bisection over the floats: low is reached by k or more, high by fewer. It ends early where no
 * number lies between the k-th and the next. */
VECTOR_INLINE void kth_largest_body(float *least, const float *x, int n, int k)
{
    uint32_t low = order_key(-INFINITY), high = order_key(INFINITY);
    int at_low = n;
    while (high - low > 1 && at_low != k) {
        uint32_t middle = low + (high - low) / 2;
        int reaching = count_reaching(x, n, float_of_key(middle));
        if (reaching >= k) {
            low = middle;
            at_low = reaching;
        } else {
            high = middle;
        }
    }
    *least = float_of_key(low);
}
FOR_EACH_PATH(kth_largest, (float *least, const float *x, int n, int k), (least, x, n, k))

kth_function kth_of(enum code_path path)
{
    return kth_largest_of(wide_path(path));
}

/* Adding zero turns the negative zero into the other. */
VECTOR_INLINE void guide_lanes_body(float *out, const float *c, const float *u, float guidance,
                                    int n, int *not_numbers)
{
    u32x16 seen = {0};
    for (int i = 0; i < n; i += LANES) {
        int here = n - i < LANES ? n - i : LANES;
        f32x16 v = load_lanes(c, DTYPE_F32, (size_t)i, here);
        if (u) {
            f32x16 base = load_lanes(u, DTYPE_F32, (size_t)i, here);
            v = base + guidance * (v - base);
        }
        v += 0.0f;
        store_lanes(out, DTYPE_F32, (size_t)i, v, here);
        seen |= sign_mask(0x7f800000u - (to_bits(v) & 0x7fffffffu));
    }
    for (int i = 0; i < LANES; i++)
        *not_numbers |= seen[i] != 0;
}
FOR_EACH_PATH(guide_lanes,
              (float *out, const float *c, const float *u, float guidance, int n, int *not_numbers),
              (out, c, u, guidance, n, not_numbers))

guide_function guide_of(enum code_path path)
{
    return guide_lanes_of(path);
}

double sample_log(double x)
{
    f64x8 v = gumbel_log((f64x8){0} + x);
    return v[0];
}
