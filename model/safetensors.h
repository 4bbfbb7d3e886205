/*
 * safetensors.h - one safetensors file: mapped, its header checked to the last byte.
 *
 * In:      u64 header length, JSON header, data. The tensors must tile the data exactly: no hole,
 * no overlap, no rest. Out:     entries sorted by name, views into the mapping. Threads: any number
 * may read; open and close belong to one.
 */
#ifndef MGPT_MODEL_SAFETENSORS_H
#define MGPT_MODEL_SAFETENSORS_H

#include <stdbool.h>

#include "model/tensor.h"

enum {
    SAFETENSORS_HEADER_BYTES_MAX = 1 << 20, /* some 8,000 tensors; see JSON_FIELDS_GROWTH */
    SAFETENSORS_TENSORS_MAX = 1 << 16,
    SAFETENSORS_NAME_BYTES_MAX = 1024
};

/* As the format names them; only three can be computed with. */
struct safetensors_entry {
    const char *name;
    const char *dtype_name; /* "BF16" ...: static text */
    int rank;
    int64_t shape[TENSOR_RANK_MAX];
    const unsigned char *data; /* as it lies in the file: perhaps not aligned */
    size_t bytes;
};

struct safetensors;

/* STATUS_NOT_FOUND, STATUS_IO, STATUS_NOMEM; STATUS_INVALID with the broken rule. On error *out is
 * NULL. */
enum status safetensors_open(struct safetensors **out, const char *path, struct error *err);

/* The same over the caller's memory, which must outlive *out; `name` stands for the file in error
 * texts. */
enum status safetensors_open_memory(struct safetensors **out, const void *bytes, size_t n_bytes,
                                    const char *name, struct error *err);
void safetensors_close(struct safetensors *file); /* NULL is fine */

const char *safetensors_path(const struct safetensors *file);
size_t safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_entry_at(const struct safetensors *file, size_t index);

/* NULL when there is none of that name. */
const struct safetensors_entry *safetensors_lookup(const struct safetensors *file,
                                                   const char *name);

/*
 * The entry as a view. STATUS_UNSUPPORTED: not F32, F16 or BF16.
 * The data may lie unaligned; safetensors_is_aligned() tells, and whoever reads it by type copies
 * it first.
 */
enum status safetensors_view(const struct safetensors *file, const struct safetensors_entry *entry,
                             struct tensor_view *out, struct error *err);
bool safetensors_is_aligned(const struct tensor_view *view);

/* Gives the pages of the mapping back; they are read again when touched. No effect on memory of the
 * caller. */
void safetensors_drop_pages(struct safetensors *file);

#endif
