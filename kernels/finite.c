/*
 * finite.c - an exponent of all ones is infinity or NaN.
 */
#include "kernels/finite.h"

#include <stdbool.h>

#include "kernels/device.h"

static bool is_finite_row(const void *row, enum dtype dtype, int n)
{
    bool bad = false;
    if (dtype == DTYPE_BF16) {
        const bf16 *values = row;
        for (int i = 0; i < n; i++)
            bad |= (values[i] & 0x7f80) == 0x7f80;
    } else {
        const uint32_t *values = row; /* f32 as it lies in memory */
        for (int i = 0; i < n; i++)
            bad |= (values[i] & 0x7f800000) == 0x7f800000;
    }
    return !bad;
}

enum status first_not_finite(int *first, const void *x, enum dtype dtype, int n_rows, int hidden,
                             struct stream *stream)
{
    struct device *device = stream_device(stream);
    const size_t row_bytes = (size_t)hidden * dtype_bytes(dtype);
    *first = -1;
    if (device)
        return device->operations->first_not_finite(device, first, x, dtype, n_rows, hidden);
    for (int i = 0; i < n_rows && *first < 0; i++)
        if (!is_finite_row((const char *)x + (size_t)i * row_bytes, dtype, hidden))
            *first = i;
    return STATUS_OK;
}
