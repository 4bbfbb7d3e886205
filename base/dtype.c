/*
 * dtype.c - conversions between number formats, one number at a time: loading is bound by the disk.
 */
#include "base/dtype.h"

#include "base/check.h"

const char *dtype_name(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? "f32" : dtype == DTYPE_BF16 ? "bf16" : "f16";
}

float f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16;
    uint32_t exponent = x >> 10 & 0x1f;
    uint32_t fraction = x & 0x3ff;
    uint32_t bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        float value = (float)fraction * 0x1p-24f; /* subnormal or zero, exact in f32 */
        memcpy(&bits, &value, sizeof(bits));
        bits |= sign;
    }
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static float load(const void *src, enum dtype dtype, size_t i)
{
    uint16_t half;
    float value;
    if (dtype == DTYPE_F32) {
        memcpy(&value, (const char *)src + 4 * i, sizeof(value)); /* file data may lie unaligned */
        return value;
    }
    memcpy(&half, (const char *)src + 2 * i, sizeof(half));
    return dtype == DTYPE_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
}

void dtype_convert(void *dst, enum dtype dst_dtype, const void *src, enum dtype src_dtype, size_t n)
{
    CHECK(dst_dtype == DTYPE_F32 || dst_dtype == DTYPE_BF16);
    if (dst_dtype == src_dtype) {
        memcpy(dst, src, n * dtype_bytes(dst_dtype));
        return;
    }
    if (dst_dtype == DTYPE_F32)
        for (size_t i = 0; i < n; i++)
            ((float *)dst)[i] = load(src, src_dtype, i);
    else
        for (size_t i = 0; i < n; i++)
            ((bf16 *)dst)[i] = bf16_from_f32(load(src, src_dtype, i));
}
