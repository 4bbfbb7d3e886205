/*
 * text_buffer.c - growing bytes.
 */
#include "model/text_buffer.h"

#include <stdlib.h>
#include <string.h>

enum status text_buffer_reserve(struct text_buffer *buffer, size_t n, struct error *err)
{
    if (n <= buffer->capacity)
        return STATUS_OK;
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity < n)
        capacity *= 2;
    char *bytes = realloc(buffer->bytes, capacity);
    if (!bytes)
        return error_set(err, STATUS_NOMEM, "cannot allocate a text of %zu bytes", capacity);
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return STATUS_OK;
}

enum status text_buffer_append(struct text_buffer *buffer, const void *bytes, size_t n,
                               struct error *err)
{
    enum status st = text_buffer_reserve(buffer, buffer->n + n, err);
    if (st != STATUS_OK || n == 0)
        return st;
    memcpy(buffer->bytes + buffer->n, bytes, n);
    buffer->n += n;
    return STATUS_OK;
}

void text_buffer_fini(struct text_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct text_buffer){0};
}
