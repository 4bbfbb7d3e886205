/*
 * safetensors.c - header first: every number is checked before anything points into the data.
 */
#include "model/safetensors.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "model/file_bytes.h"
#include "model/json_fields.h"

enum { LENGTH_BYTES = 8 };

struct safetensors {
    struct file_mapping mapping; /* n_bytes 0 when the memory is the caller's */
    const unsigned char *bytes;
    size_t n_bytes;
    char *path;
    json_t *header; /* owns the names */
    size_t n_entries;
    struct safetensors_entry *entries; /* [n_entries] by name */
};

/* All element types of the format; `dtype` is -1 where nothing here computes with them. */
static const struct format_dtype {
    const char *name;
    int bytes;
    int dtype;
} format_dtypes[] = {
    {"BF16", 2, DTYPE_BF16}, {"F16", 2, DTYPE_F16}, {"F32", 4, DTYPE_F32}, {"F64", 8, -1},
    {"I64", 8, -1},          {"I32", 4, -1},        {"I16", 2, -1},        {"I8", 1, -1},
    {"U64", 8, -1},          {"U32", 4, -1},        {"U16", 2, -1},        {"U8", 1, -1},
    {"BOOL", 1, -1},         {"F8_E4M3", 1, -1},    {"F8_E5M2", 1, -1},    {"F8_E8M0", 1, -1},
    {"C64", 8, -1},
};

static const struct format_dtype *find_format_dtype(const char *name)
{
    for (size_t i = 0; i < sizeof(format_dtypes) / sizeof(format_dtypes[0]); i++)
        if (strcmp(format_dtypes[i].name, name) == 0)
            return &format_dtypes[i];
    return NULL;
}

static enum status wrong(const struct safetensors *file, const char *tensor, const char *field,
                         const json_t *value, const char *expected, struct error *err)
{
    char found[JSON_FIELDS_TEXT_BYTES];
    return error_set(err, STATUS_INVALID, "'%s': tensor '%.128s': '%s' is %s, expected %s",
                     file->path, tensor, field, json_fields_describe(found, value), expected);
}

/* Shape, and the number of bytes it calls for; no product may overflow. */
static enum status take_shape(struct safetensors_entry *entry, size_t *wanted, size_t element_bytes,
                              const struct safetensors *file, const json_t *shape,
                              struct error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_RANK_MAX)
        return wrong(file, entry->name, "shape", shape, "an array of at most 8 integers", err);
    entry->rank = (int)json_array_size(shape);
    *wanted = element_bytes;
    bool empty = false;
    for (int i = 0; i < entry->rank; i++) {
        const json_t *size = json_array_get(shape, (size_t)i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return wrong(file, entry->name, "shape", size, "integers of at least 0", err);
        entry->shape[i] = json_integer_value(size);
        empty |= entry->shape[i] == 0;
        if (!empty && __builtin_mul_overflow(*wanted, (size_t)entry->shape[i], wanted))
            return wrong(file, entry->name, "shape", size, "a tensor that fits into memory", err);
    }
    if (empty)
        *wanted = 0;
    return STATUS_OK;
}

static enum status take_offsets(size_t *begin, size_t *end, const struct safetensors *file,
                                const char *tensor, const json_t *offsets, size_t data_bytes,
                                struct error *err)
{
    size_t *ends[2] = {begin, end};
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return wrong(file, tensor, "data_offsets", offsets, "an array of two integers", err);
    for (size_t i = 0; i < 2; i++) {
        const json_t *offset = json_array_get(offsets, i);
        if (!json_is_integer(offset) || json_integer_value(offset) < 0)
            return wrong(file, tensor, "data_offsets", offset, "integers of at least 0", err);
        *ends[i] = (size_t)json_integer_value(offset);
    }
    if (*begin > *end || *end > data_bytes)
        return error_set(err, STATUS_INVALID,
                         "'%s': tensor '%.128s' lies at bytes %zu to %zu of the data, which has "
                         "%zu bytes: the file is cut short or wrong",
                         file->path, tensor, *begin, *end, data_bytes);
    return STATUS_OK;
}

static enum status take_entry(struct safetensors_entry *entry, const struct safetensors *file,
                              const unsigned char *data, const json_t *value, struct error *err)
{
    if (strlen(entry->name) > SAFETENSORS_NAME_BYTES_MAX)
        return error_set(err, STATUS_INVALID,
                         "'%s': a tensor's name has %zu bytes, expected at most %d", file->path,
                         strlen(entry->name), SAFETENSORS_NAME_BYTES_MAX);
    if (!json_is_object(value))
        return wrong(file, entry->name, "entry", value, "an object", err);
    const char *key;
    json_t *field;
    json_object_foreach((json_t *)value, key, field)
    {
        if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
            return wrong(file, entry->name, key, field, "only dtype, shape and data_offsets", err);
    }
    const json_t *name = json_object_get(value, "dtype");
    const struct format_dtype *dtype =
        json_is_string(name) ? find_format_dtype(json_string_value(name)) : NULL;
    if (!dtype)
        return wrong(file, entry->name, "dtype", name, "a type of the format, such as 'BF16'", err);
    entry->dtype_name = dtype->name;
    size_t wanted = 0, begin, end, data_bytes = (size_t)(file->bytes + file->n_bytes - data);
    enum status st = take_shape(entry, &wanted, (size_t)dtype->bytes, file,
                                json_object_get(value, "shape"), err);
    if (st == STATUS_OK)
        st = take_offsets(&begin, &end, file, entry->name, json_object_get(value, "data_offsets"),
                          data_bytes, err);
    if (st != STATUS_OK)
        return st;
    if (end - begin != wanted) {
        char shape[TENSOR_SHAPE_TEXT_BYTES];
        return error_set(err, STATUS_INVALID,
                         "'%s': tensor '%.128s' has %zu bytes, expected %zu for %s of %s",
                         file->path, entry->name, end - begin, wanted,
                         tensor_format_shape(shape, entry->rank, entry->shape), dtype->name);
    }
    entry->data = data + begin;
    entry->bytes = wanted;
    return STATUS_OK;
}

/* Empty tensors come first among those that begin at one place. */
static int by_place(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The tensors must tile the data: a hole may hide anything, an overlap is one memory twice. */
static enum status check_tiling(struct safetensors *file, const unsigned char *data,
                                struct error *err)
{
    qsort(file->entries, file->n_entries, sizeof(file->entries[0]), by_place);
    const unsigned char *at = data;
    for (size_t i = 0; i < file->n_entries; i++) {
        const struct safetensors_entry *entry = &file->entries[i];
        if (entry->data != at)
            return error_set(
                err, STATUS_INVALID,
                "'%s': tensor '%.128s' begins at byte %zu of the data, expected %zu: tensors %s",
                file->path, entry->name, (size_t)(entry->data - data), (size_t)(at - data),
                entry->data < at ? "overlap" : "leave a hole");
        at = entry->data + entry->bytes;
    }
    size_t rest = (size_t)(file->bytes + file->n_bytes - at);
    if (rest > 0)
        return error_set(err, STATUS_INVALID,
                         "'%s' has %zu bytes behind its last tensor, expected none", file->path,
                         rest);
    qsort(file->entries, file->n_entries, sizeof(file->entries[0]), by_name);
    return STATUS_OK;
}

/* Texts by name, and nothing else, as the format has it. */
static enum status check_metadata(const struct safetensors *file, const json_t *metadata,
                                  struct error *err)
{
    char found[JSON_FIELDS_TEXT_BYTES];
    if (!json_is_object(metadata))
        return error_set(err, STATUS_INVALID, "'%s': '__metadata__' is %s, expected an object",
                         file->path, json_fields_describe(found, metadata));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)metadata, key, value)
    {
        if (!json_is_string(value))
            return error_set(err, STATUS_INVALID,
                             "'%s': '__metadata__.%.60s' is %s, expected a string", file->path, key,
                             json_fields_describe(found, value));
    }
    return STATUS_OK;
}

static enum status take_entries(struct safetensors *file, const unsigned char *data,
                                struct error *err)
{
    size_t n = json_object_size(file->header);
    if (n > SAFETENSORS_TENSORS_MAX)
        return error_set(err, STATUS_INVALID, "'%s' names %zu tensors, expected at most %d",
                         file->path, n, SAFETENSORS_TENSORS_MAX);
    file->entries = calloc(n + 1, sizeof(file->entries[0]));
    if (!file->entries)
        return error_set(err, STATUS_NOMEM, "cannot allocate the %zu entries of '%s'", n,
                         file->path);
    const char *name;
    json_t *value;
    json_object_foreach(file->header, name, value)
    {
        bool is_metadata = strcmp(name, "__metadata__") == 0;
        struct safetensors_entry *entry = &file->entries[file->n_entries];
        entry->name = name;
        enum status st = is_metadata ? check_metadata(file, value, err)
                                     : take_entry(entry, file, data, value, err);
        if (st != STATUS_OK)
            return st;
        file->n_entries += !is_metadata;
    }
    return check_tiling(file, data, err);
}

static enum status read_header(struct safetensors *file, struct error *err)
{
    if (file->n_bytes < LENGTH_BYTES)
        return error_set(err, STATUS_INVALID,
                         "'%s' has %zu bytes, expected at least %d for the header length",
                         file->path, file->n_bytes, LENGTH_BYTES);
    uint64_t length = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        length |= (uint64_t)file->bytes[i] << (8 * i);
    if (length > SAFETENSORS_HEADER_BYTES_MAX)
        return error_set(err, STATUS_INVALID,
                         "'%s': the header length is %llu, expected at most %d", file->path,
                         (unsigned long long)length, SAFETENSORS_HEADER_BYTES_MAX);
    if (length > file->n_bytes - LENGTH_BYTES)
        return error_set(err, STATUS_INVALID,
                         "'%s': the header length is %llu, but only %zu bytes follow", file->path,
                         (unsigned long long)length, file->n_bytes - LENGTH_BYTES);
    enum status st = json_fields_parse(&file->header, file->bytes + LENGTH_BYTES, (size_t)length,
                                       file->path, err);
    if (st != STATUS_OK)
        return error_wrap(err, st, "header");
    return take_entries(file, file->bytes + LENGTH_BYTES + length, err);
}

static enum status open_bytes(struct safetensors **out, struct file_mapping mapping,
                              const void *bytes, size_t n_bytes, const char *name,
                              struct error *err)
{
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof(*file));
    if (file)
        file->path = strdup(name);
    if (!file || !file->path) {
        free(file);
        file_mapping_close(&mapping);
        return error_set(err, STATUS_NOMEM, "cannot allocate the reader of '%s'", name);
    }
    file->mapping = mapping;
    file->bytes = bytes;
    file->n_bytes = n_bytes;
    enum status st = read_header(file, err);
    if (st != STATUS_OK) {
        safetensors_close(file);
        return st;
    }
    *out = file;
    return STATUS_OK;
}

enum status safetensors_open(struct safetensors **out, const char *path, struct error *err)
{
    struct file_mapping mapping;
    *out = NULL;
    enum status st = file_mapping_open(&mapping, path, err);
    if (st != STATUS_OK)
        return st;
    return open_bytes(out, mapping, mapping.bytes, mapping.n_bytes, path, err);
}

enum status safetensors_open_memory(struct safetensors **out, const void *bytes, size_t n_bytes,
                                    const char *name, struct error *err)
{
    return open_bytes(out, (struct file_mapping){NULL, 0}, bytes, n_bytes, name, err);
}

void safetensors_close(struct safetensors *file)
{
    if (!file)
        return;
    file_mapping_close(&file->mapping);
    json_decref(file->header);
    free(file->entries);
    free(file->path);
    free(file);
}

const char *safetensors_path(const struct safetensors *file)
{
    return file->path;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->n_entries;
}

const struct safetensors_entry *safetensors_entry_at(const struct safetensors *file, size_t index)
{
    return index < file->n_entries ? &file->entries[index] : NULL;
}

const struct safetensors_entry *safetensors_lookup(const struct safetensors *file, const char *name)
{
    struct safetensors_entry key = {.name = name};
    return bsearch(&key, file->entries, file->n_entries, sizeof(key), by_name);
}

enum status safetensors_view(const struct safetensors *file, const struct safetensors_entry *entry,
                             struct tensor_view *out, struct error *err)
{
    const struct format_dtype *dtype = find_format_dtype(entry->dtype_name);
    if (dtype->dtype < 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "'%s': tensor '%.128s' is %s, expected BF16, F16 or F32", file->path,
                         entry->name, entry->dtype_name);
    *out = (struct tensor_view){.name = entry->name,
                                .file = file->path,
                                .dtype = (enum dtype)dtype->dtype,
                                .rank = entry->rank,
                                .data = entry->data,
                                .bytes = entry->bytes};
    memcpy(out->shape, entry->shape, sizeof(out->shape));
    return STATUS_OK;
}

bool safetensors_is_aligned(const struct tensor_view *view)
{
    return (uintptr_t)view->data % dtype_bytes(view->dtype) == 0;
}

void safetensors_drop_pages(struct safetensors *file)
{
    file_mapping_drop_pages(&file->mapping);
}
