/*
 * safetensors_write.c - header, data, rename: a reader never sees half a file under its name.
 */
#include "model/safetensors_write.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DATA_ALIGNMENT = 64, LENGTH_BYTES = 8 };

struct safetensors_writer {
    char *path;
    char *temporary; /* NULL once the file is in place */
    int fd;
    size_t bytes_left;
};

static const char *format_dtype(enum dtype dtype)
{
    return dtype == DTYPE_F32 ? "F32" : dtype == DTYPE_BF16 ? "BF16" : "F16";
}

static enum status tensor_bytes(size_t *bytes, const struct safetensors_output *tensor,
                                struct error *err)
{
    *bytes = dtype_bytes(tensor->dtype);
    bool fits = tensor->rank >= 0 && tensor->rank <= TENSOR_RANK_MAX;
    for (int i = 0; fits && i < tensor->rank; i++)
        fits = tensor->shape[i] >= 0 &&
               !__builtin_mul_overflow(*bytes, (size_t)tensor->shape[i], bytes);
    if (!fits)
        return error_set(err, STATUS_INVALID, "tensor '%s' has a shape that cannot be written",
                         tensor->name);
    return STATUS_OK;
}

/* The header as JSON; *data_bytes is what has to follow. */
static enum status make_header(char **text, size_t *data_bytes,
                               const struct safetensors_output *tensors, int n_tensors,
                               struct error *err)
{
    json_t *header = json_pack("{s{ss}}", "__metadata__", "format", "pt");
    enum status st = STATUS_OK;
    *data_bytes = 0;
    for (int i = 0; i < n_tensors && st == STATUS_OK; i++) {
        const struct safetensors_output *tensor = &tensors[i];
        size_t bytes;
        st = tensor_bytes(&bytes, tensor, err);
        if (st != STATUS_OK)
            break;
        json_t *shape = json_array();
        for (int axis = 0; axis < tensor->rank; axis++)
            json_array_append_new(shape, json_integer(tensor->shape[axis]));
        json_t *entry =
            json_pack("{sssos[II]}", "dtype", format_dtype(tensor->dtype), "shape", shape,
                      "data_offsets", (json_int_t)*data_bytes, (json_int_t)(*data_bytes + bytes));
        if (json_object_get(header, tensor->name))
            st = error_set(err, STATUS_INVALID, "tensor '%s' is given twice", tensor->name);
        if (json_object_set_new(header, tensor->name, entry) != 0 && st == STATUS_OK)
            st = error_set(err, STATUS_NOMEM, "cannot make the header entry of tensor '%s'",
                           tensor->name);
        *data_bytes += bytes;
    }
    *text = st == STATUS_OK ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (st == STATUS_OK && !*text)
        st = error_set(err, STATUS_NOMEM, "cannot make the header of %d tensors", n_tensors);
    return st;
}

static enum status write_all(int fd, const void *bytes, size_t n_bytes, const char *path,
                             struct error *err)
{
    const char *at = bytes;
    while (n_bytes > 0) {
        ssize_t put = write(fd, at, n_bytes);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", path);
        at += put;
        n_bytes -= (size_t)put;
    }
    return STATUS_OK;
}

static enum status write_header(struct safetensors_writer *writer, const char *text,
                                struct error *err)
{
    size_t length = strlen(text);
    size_t padding = (DATA_ALIGNMENT - (LENGTH_BYTES + length) % DATA_ALIGNMENT) % DATA_ALIGNMENT;
    unsigned char prefix[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        prefix[i] = (unsigned char)((uint64_t)(length + padding) >> (8 * i));
    char spaces[DATA_ALIGNMENT];
    memset(spaces, ' ', sizeof(spaces));
    enum status st = write_all(writer->fd, prefix, sizeof(prefix), writer->path, err);
    if (st == STATUS_OK)
        st = write_all(writer->fd, text, length, writer->path, err);
    if (st == STATUS_OK)
        st = write_all(writer->fd, spaces, padding, writer->path, err);
    return st;
}

enum status safetensors_writer_create(struct safetensors_writer **out, const char *path,
                                      const struct safetensors_output *tensors, int n_tensors,
                                      struct error *err)
{
    *out = NULL;
    struct safetensors_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return error_set(err, STATUS_NOMEM, "cannot allocate the writer of '%s'", path);
    writer->fd = -1;
    writer->path = strdup(path);
    char *text = NULL;
    enum status st = STATUS_OK;
    if (!writer->path || asprintf(&writer->temporary, "%s.part", path) < 0) {
        writer->temporary = NULL;
        st = error_set(err, STATUS_NOMEM, "cannot allocate the writer of '%s'", path);
    }
    if (st == STATUS_OK)
        st = make_header(&text, &writer->bytes_left, tensors, n_tensors, err);
    if (st == STATUS_OK) {
        writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (writer->fd < 0)
            st = error_set_errno(err, STATUS_IO, errno, "cannot create '%s'", writer->temporary);
    }
    if (st == STATUS_OK)
        st = write_header(writer, text, err);
    free(text);
    if (st != STATUS_OK) {
        safetensors_writer_destroy(writer);
        return st;
    }
    *out = writer;
    return STATUS_OK;
}

enum status safetensors_writer_append(struct safetensors_writer *writer, const void *bytes,
                                      size_t n_bytes, struct error *err)
{
    if (n_bytes > writer->bytes_left)
        return error_set(err, STATUS_INVALID, "'%s': %zu bytes are too many, expected at most %zu",
                         writer->path, n_bytes, writer->bytes_left);
    writer->bytes_left -= n_bytes;
    return write_all(writer->fd, bytes, n_bytes, writer->path, err);
}

enum status safetensors_writer_finish(struct safetensors_writer *writer, struct error *err)
{
    if (writer->bytes_left > 0)
        return error_set(err, STATUS_INVALID, "'%s': %zu bytes are missing", writer->path,
                         writer->bytes_left);
    int failed = close(writer->fd);
    writer->fd = -1;
    if (failed)
        return error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", writer->path);
    if (rename(writer->temporary, writer->path) != 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot rename '%s' to '%s'",
                               writer->temporary, writer->path);
    free(writer->temporary);
    writer->temporary = NULL;
    return STATUS_OK;
}

void safetensors_writer_destroy(struct safetensors_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->temporary)
        unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    free(writer);
}

enum status safetensors_write(const char *path, const struct safetensors_output *tensors,
                              int n_tensors, struct error *err)
{
    struct safetensors_writer *writer;
    enum status st = safetensors_writer_create(&writer, path, tensors, n_tensors, err);
    for (int i = 0; i < n_tensors && st == STATUS_OK; i++) {
        size_t bytes;
        st = tensor_bytes(&bytes, &tensors[i], err);
        if (st == STATUS_OK)
            st = safetensors_writer_append(writer, tensors[i].data, bytes, err);
    }
    if (st == STATUS_OK)
        st = safetensors_writer_finish(writer, err);
    safetensors_writer_destroy(writer);
    return st;
}
