/*
 * gumbel.c - Philox4x32-10 and the logarithm on vectors of eight 64-bit lanes.
 *
 * Only additions, products, one division and whole-number operations: IEEE 754 fixes every bit,
 * whatever the vectors.
 */
#include "kernels/cpu/gumbel.h"

#include "kernels/cpu/vector.h"
#include "kernels/sample.h"

typedef double f64x8 __attribute__((vector_size(64)));
typedef uint64_t u64x8 __attribute__((vector_size(64)));

enum { WIDE = 8 };

/* Whole numbers below 2^52, through the bits of 2^52 + x. */
VECTOR_INLINE f64x8 to_double(u64x8 x)
{
    f64x8 y;
    x |= 0x4330000000000000ull;
    memcpy(&y, &x, sizeof(y));
    return y - 0x1p52;
}

/*
 * log(x) = k ln 2 + log(1 + f), x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); with s = f / (2 +
 * f): log(1 + f) = f - f^2/2 + s (f^2/2 + R), R = sum of 2/(2i+1) s^2i from i = 1; i <= 10 leaves
 * 2^-56 of the whole. ln 2 comes in two parts, the first with zeros at its end, so that k times it
 * is exact.
 */
VECTOR_INLINE f64x8 log_lanes(f64x8 x)
{
    u64x8 bits;
    memcpy(&bits, &x, sizeof(bits));
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcdull, bias = 1ull << 63;
    u64x8 offset = bits - sqrt_half, k = (offset + bias) >> 52; /* 2048 more than the exponent */
    u64x8 mantissa = bits - ((offset >> 52) << 52);
    f64x8 m;
    memcpy(&m, &mantissa, sizeof(m));
    f64x8 f = m - 1.0, s = f / (m + 1.0), z = s * s;
    f64x8 r = z * (2.0 / 21) + 2.0 / 19;
    r = r * z + 2.0 / 17;
    r = r * z + 2.0 / 15;
    r = r * z + 2.0 / 13;
    r = r * z + 2.0 / 11;
    r = r * z + 2.0 / 9;
    r = r * z + 2.0 / 7;
    r = r * z + 2.0 / 5;
    r = r * z + 2.0 / 3;
    r = r * z;
    f64x8 half_square = f * f * 0.5, exponent = to_double(k) - 2048.0;
    f64x8 small = s * (half_square + r) + exponent * 1.90821492927058770002e-10;
    return exponent * 6.93147180369123816490e-01 - ((half_square - small) - f);
}

/* One round and both products of Philox; words are in the low halves. */
VECTOR_INLINE void philox_round(u64x8 c[4], uint32_t k0, uint32_t k1)
{
    const u64x8 low = (u64x8){0} + 0xffffffffu;
    u64x8 p0 = c[0] * 0xD2511F53u, p1 = c[2] * 0xCD9E8D57u;
    c[0] = (p1 >> 32) ^ c[1] ^ k0;
    c[2] = (p0 >> 32) ^ c[3] ^ k1;
    c[1] = p1 & low;
    c[3] = p0 & low;
}

VECTOR_INLINE void gumbel_eight(double *noise, const int32_t *ids, const struct gumbel_place *place)
{
    u64x8 id = {0};
    for (int i = 0; i < WIDE; i++)
        id[i] = (uint32_t)ids[i];
    u64x8 zero = {0};
    u64x8 c[4] = {id >> 2, zero + place->ordinal, zero + place->picture_index,
                  zero + place->domain_tag};
    uint32_t k0 = place->key[0], k1 = place->key[1];
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        philox_round(c, k0, k1);
    u64x8 word = zero;
    for (uint64_t i = 0; i < 4; i++)
        word |= c[i] & -((((id & 3u) ^ i) - 1u) >> 63); /* all ones where id % 4 is i */
    f64x8 u = (to_double(word >> 8) + 0.5) * 0x1p-24;
    f64x8 g = -log_lanes(-log_lanes(u));
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
    return sixteen_of(path);
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
    f64x8 v = log_lanes((f64x8){0} + x);
    return v[0];
}
