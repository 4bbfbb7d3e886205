/*
 * ids.c - a growing list of token ids.
 */
#include "model/ids.h"

#include <stdlib.h>
#include <string.h>

static enum status reserve(struct ids *list, size_t n, struct error *err)
{
    if (n <= list->capacity)
        return STATUS_OK;
    size_t capacity = list->capacity ? list->capacity : 64;
    while (capacity < n)
        capacity *= 2;
    int32_t *ids = reallocarray(list->ids, capacity, sizeof(*ids));
    if (!ids)
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of %zu ids", capacity);
    list->ids = ids;
    list->capacity = capacity;
    return STATUS_OK;
}

enum status ids_push(struct ids *list, int32_t id, struct error *err)
{
    return ids_append(list, &id, 1, err);
}

enum status ids_append(struct ids *list, const int32_t *ids, size_t n, struct error *err)
{
    if (n == 0)
        return STATUS_OK;
    enum status st = reserve(list, list->n + n, err);
    if (st != STATUS_OK)
        return st;
    memcpy(list->ids + list->n, ids, n * sizeof(*ids));
    list->n += n;
    return STATUS_OK;
}

void ids_fini(struct ids *list)
{
    free(list->ids);
    *list = (struct ids){0};
}
