/*
 * tensor.c - shapes as text, and the search for numbers that are none.
 */
#include "model/tensor.h"

#include <stdbool.h>
#include <stdio.h>

size_t tensor_elements(const struct tensor_view *tensor)
{
    return tensor->bytes / dtype_bytes(tensor->dtype);
}

const char *tensor_format_shape(char text[TENSOR_SHAPE_TEXT_BYTES], int rank, const int64_t *shape)
{
    size_t used = 0;
    text[used++] = '[';
    for (int i = 0; i < rank && i < TENSOR_RANK_MAX; i++)
        used += (size_t)snprintf(text + used, TENSOR_SHAPE_TEXT_BYTES - used, "%s%lld",
                                 i ? ", " : "", (long long)shape[i]);
    snprintf(text + used, TENSOR_SHAPE_TEXT_BYTES - used, "]");
    return text;
}

enum status tensor_expect_shape(const struct tensor_view *tensor, int rank, const int64_t *shape,
                                struct error *err)
{
    bool same = tensor->rank == rank;
    for (int i = 0; same && i < rank; i++)
        same = tensor->shape[i] == shape[i];
    if (same)
        return STATUS_OK;
    char found[TENSOR_SHAPE_TEXT_BYTES], expected[TENSOR_SHAPE_TEXT_BYTES];
    return error_set(err, STATUS_INVALID, "'%s': tensor '%s' is %s, expected %s", tensor->file,
                     tensor->name, tensor_format_shape(found, tensor->rank, tensor->shape),
                     tensor_format_shape(expected, rank, shape));
}

/* A number is NaN or infinite when all bits of its exponent are set. */
static bool finite16(const uint16_t *values, size_t n, uint16_t exponent)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (values[i] & exponent) == exponent;
    return !bad;
}

static bool finite32(const uint32_t *values, size_t n)
{
    unsigned bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (values[i] & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

static bool all_finite(const struct tensor_view *tensor, size_t first, size_t n)
{
    const unsigned char *at =
        (const unsigned char *)tensor->data + first * dtype_bytes(tensor->dtype);
    if (tensor->dtype == DTYPE_F32)
        return finite32((const void *)at, n);
    return finite16((const void *)at, n, tensor->dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00);
}

enum status tensor_check_finite(const struct tensor_view *tensor, struct error *err)
{
    enum { PIECE = 4096 }; /* found bad, a piece is searched number by number */
    size_t n = tensor_elements(tensor);
    for (size_t first = 0; first < n; first += PIECE) {
        size_t piece = n - first < PIECE ? n - first : PIECE;
        if (all_finite(tensor, first, piece))
            continue;
        while (all_finite(tensor, first, 1))
            first++;
        return error_set(err, STATUS_INVALID, "'%s': tensor '%s': number %zu of %zu is not finite",
                         tensor->file, tensor->name, first, n);
    }
    return STATUS_OK;
}
