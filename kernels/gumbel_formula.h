/*
 * gumbel_formula.h - the noise of a token, written once for vectors of the CPU and single numbers of a device.
 *
 * The includer defines GUMBEL_F64 and GUMBEL_U64, a double and a 64-bit number or vectors of them, and GUMBEL_INLINE.
 * Only additions, products, one division and whole-number operations: IEEE 754 fixes every bit, whatever the vectors,
 * where products and sums are not fused.
 */
#ifndef MGPT_KERNELS_GUMBEL_FORMULA_H
#define MGPT_KERNELS_GUMBEL_FORMULA_H

#include <string.h>

#include "kernels/sample.h"

/* Whole numbers below 2^52, through the bits of 2^52 + x. */
GUMBEL_INLINE GUMBEL_F64 gumbel_to_double(GUMBEL_U64 x)
{
    GUMBEL_F64 y;
    x |= 0x4330000000000000ull;
    memcpy(&y, &x, sizeof(y));
    return y - 4503599627370496.0; /* 2^52 */
}

/*
 * log(x) = k ln 2 + log(1 + f), x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); with s = f / (2 +
 * f): log(1 + f) = f - f^2/2 + s (f^2/2 + R), R = sum of 2/(2i+1) s^2i from i = 1; i <= 10 leaves
 * 2^-56 of the whole. ln 2 comes in two parts, the first with zeros at its end, so that k times it
 * is exact.
 */
GUMBEL_INLINE GUMBEL_F64 gumbel_log(GUMBEL_F64 x)
{
    GUMBEL_U64 bits;
    memcpy(&bits, &x, sizeof(bits));
    const uint64_t sqrt_half = 0x3fe6a09e667f3bcdull, bias = 1ull << 63;
    GUMBEL_U64 offset = bits - sqrt_half, k = (offset + bias) >> 52; /* 2048 more than the exponent */
    GUMBEL_U64 mantissa = bits - ((offset >> 52) << 52);
    GUMBEL_F64 m;
    memcpy(&m, &mantissa, sizeof(m));
    GUMBEL_F64 f = m - 1.0, s = f / (m + 1.0), z = s * s;
    GUMBEL_F64 r = z * (2.0 / 21) + 2.0 / 19;
    r = r * z + 2.0 / 17;
    r = r * z + 2.0 / 15;
    r = r * z + 2.0 / 13;
    r = r * z + 2.0 / 11;
    r = r * z + 2.0 / 9;
    r = r * z + 2.0 / 7;
    r = r * z + 2.0 / 5;
    r = r * z + 2.0 / 3;
    r = r * z;
    GUMBEL_F64 half_square = f * f * 0.5, exponent = gumbel_to_double(k) - 2048.0;
    GUMBEL_F64 small = s * (half_square + r) + exponent * 1.90821492927058770002e-10;
    return exponent * 6.93147180369123816490e-01 - ((half_square - small) - f);
}

/* One round and both products of Philox; words are in the low halves. */
GUMBEL_INLINE void gumbel_philox_round(GUMBEL_U64 c[4], uint32_t k0, uint32_t k1)
{
    GUMBEL_U64 p0 = c[0] * 0xD2511F53ull, p1 = c[2] * 0xCD9E8D57ull;
    c[0] = (p1 >> 32) ^ c[1] ^ (uint64_t)k0;
    c[2] = (p0 >> 32) ^ c[3] ^ (uint64_t)k1;
    c[1] = p1 & 0xffffffffull;
    c[3] = p0 & 0xffffffffull;
}

/* The 24 bits of a token's random word that u is made of. */
GUMBEL_INLINE GUMBEL_U64 gumbel_bits(GUMBEL_U64 id, const struct gumbel_place *place)
{
    const GUMBEL_U64 zero = id ^ id;
    GUMBEL_U64 c[4] = {id >> 2, zero + (uint64_t)place->ordinal, zero + (uint64_t)place->picture_index,
                       zero + (uint64_t)place->domain_tag};
    uint32_t k0 = place->key[0], k1 = place->key[1];
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        gumbel_philox_round(c, k0, k1);
    GUMBEL_U64 word = zero;
    for (uint64_t i = 0; i < 4; i++)
        word |= c[i] & -((((id & 3ull) ^ i) - 1ull) >> 63); /* all ones where id % 4 is i */
    return word >> 8;
}

/* -log(-log(u)), u as sample.h says. */
GUMBEL_INLINE GUMBEL_F64 gumbel_noise(GUMBEL_U64 id, const struct gumbel_place *place)
{
    GUMBEL_F64 u = (gumbel_to_double(gumbel_bits(id, place)) + 0.5) * (1.0 / 16777216.0);
    return -gumbel_log(-gumbel_log(u));
}

#endif
