/*
 * embedding.c - a copy of rows; the same for every compute type, so there is no twin.
 */
#include "kernels/embedding.h"

#include <string.h>

#include "kernels/device.h"

enum status embedding(void *y, const int32_t *ids, const void *table, enum dtype dtype, int n_rows,
                      int hidden, int vocab, struct stream *stream)
{
    struct device *device = stream_device(stream);
    size_t row_bytes = (size_t)hidden * dtype_bytes(dtype);
    for (int r = 0; r < n_rows; r++)
        if (ids[r] < 0 || ids[r] >= vocab)
            return STATUS_INVALID;
    if (device)
        return device->operations->embedding(device, y, ids, table, dtype, n_rows, hidden);
    for (int r = 0; r < n_rows; r++)
        memcpy((char *)y + (size_t)r * row_bytes, (const char *)table + (size_t)ids[r] * row_bytes,
               row_bytes);
    return STATUS_OK;
}
