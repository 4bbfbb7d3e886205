/*
 * dtype.h - the number formats of weights and activations, and their conversions.
 *
 * bf16 rounds to nearest, ties to even, as every framework does; NaN stays NaN.
 */
#ifndef MGPT_BASE_DTYPE_H
#define MGPT_BASE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16 };

typedef uint16_t bf16; /* the upper half of an f32 */

static inline size_t dtype_bytes(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? 4 : 2;
}

const char *dtype_name(enum dtype dtype); /* "f32", "bf16", "f16" */

static inline float bf16_to_f32(bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline bf16 bf16_from_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000)
        return (bf16)(bits >> 16 | 0x40);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t x);

/* Converts n numbers; dst and src do not overlap. dst_dtype is DTYPE_F32 or DTYPE_BF16. */
void dtype_convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n);

#endif
