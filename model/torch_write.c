/*
 * torch_write.c - a memory buffer for the pickle, another for the zip directory, the data straight
 * to the file.
 */
#include "model/torch_write.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { DATA_ALIGNMENT = 64, LOCAL_BYTES = 30, FOLDER_BYTES_MAX = 64 };

static const char folder[] = "vqgan/"; /* torch takes the name of the file; readers accept any */

struct torch_writer {
    char *path;
    FILE *file;
    uint64_t position;
    char *pickle; /* of pickle_stream */
    size_t pickle_bytes;
    FILE *pickle_stream;
    char *directory; /* of directory_stream */
    size_t directory_bytes;
    FILE *directory_stream;
    int n_entries, n_tensors;
};

static void put16(unsigned char *at, uint32_t value)
{
    at[0] = (unsigned char)value;
    at[1] = (unsigned char)(value >> 8);
}

static void put32(unsigned char *at, uint32_t value)
{
    put16(at, value & 0xffff);
    put16(at + 2, value >> 16);
}

/* Size, CRC and name fields that both headers share, from `crc` on. */
static void put_common(unsigned char *at, uint32_t crc, size_t n_bytes, size_t name_bytes)
{
    put32(at, crc);
    put32(at + 4, (uint32_t)n_bytes);
    put32(at + 8, (uint32_t)n_bytes);
    put16(at + 12, (uint32_t)name_bytes);
}

/* A stored entry; an extra field puts the data at a multiple of 64, as torch has it. */
static enum status put_entry(struct torch_writer *writer, const char *entry, const void *bytes,
                             size_t n_bytes, struct error *err)
{
    char name[FOLDER_BYTES_MAX + 64];
    unsigned char local[LOCAL_BYTES] = {0}, central[46] = {0}, extra[4 + DATA_ALIGNMENT] = "FB";
    size_t name_bytes = (size_t)snprintf(name, sizeof(name), "%s%s", folder, entry);
    size_t unpadded = writer->position + LOCAL_BYTES + name_bytes + 4;
    size_t padding = (DATA_ALIGNMENT - unpadded % DATA_ALIGNMENT) % DATA_ALIGNMENT;
    uint32_t crc = (uint32_t)crc32_z(0, bytes, n_bytes);
    if (writer->position + n_bytes > UINT32_MAX - 65536)
        return error_set(err, STATUS_INVALID, "'%s' grows past 4 GiB, which needs zip64",
                         writer->path);
    put32(local, 0x04034b50);
    put_common(local + 14, crc, n_bytes, name_bytes);
    put16(local + 28, (uint32_t)(4 + padding));
    put16(extra + 2, (uint32_t)padding);
    memset(extra + 4, 'Z', padding);
    put32(central, 0x02014b50);
    put_common(central + 16, crc, n_bytes, name_bytes);
    put32(central + 42, (uint32_t)writer->position);
    fwrite(local, 1, sizeof(local), writer->file);
    fwrite(name, 1, name_bytes, writer->file);
    fwrite(extra, 1, 4 + padding, writer->file);
    fwrite(bytes, 1, n_bytes, writer->file);
    fwrite(central, 1, sizeof(central), writer->directory_stream);
    fwrite(name, 1, name_bytes, writer->directory_stream);
    writer->position += LOCAL_BYTES + name_bytes + 4 + padding + n_bytes;
    writer->n_entries++;
    if (ferror(writer->file) || ferror(writer->directory_stream))
        return error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", writer->path);
    return STATUS_OK;
}

static void pickle_text(FILE *stream, const char *text)
{
    unsigned char length[4];
    put32(length, (uint32_t)strlen(text));
    fputc('X', stream);
    fwrite(length, 1, sizeof(length), stream);
    fputs(text, stream);
}

static void pickle_int(FILE *stream, int64_t value)
{
    fputc(0x8a, stream); /* LONG1 of 8 bytes */
    fputc(8, stream);
    for (int i = 0; i < 8; i++)
        fputc((int)((uint64_t)value >> (8 * i) & 0xff), stream);
}

/* rebuild_tensor(storage, 0, shape, stride, False, OrderedDict()) under its name. */
static void pickle_tensor(FILE *stream, const char *name, const char *key, int rank,
                          const int64_t *shape, int64_t n_elements)
{
    pickle_text(stream, name);
    fputs("ctorch._utils\n_rebuild_tensor_v2\n((", stream);
    pickle_text(stream, "storage");
    fputs("ctorch\nFloatStorage\n", stream);
    pickle_text(stream, key);
    pickle_text(stream, "cpu");
    pickle_int(stream, n_elements);
    fputs("tQ", stream);
    pickle_int(stream, 0);
    fputc('(', stream);
    for (int i = 0; i < rank; i++)
        pickle_int(stream, shape[i]);
    fputs("t(", stream);
    int64_t stride = n_elements;
    for (int i = 0; i < rank; i++) {
        stride = shape[i] ? stride / shape[i] : 1;
        pickle_int(stream, stride);
    }
    fputs("t\x89"
          "ccollections\nOrderedDict\n)RtR",
          stream);
}

enum status torch_writer_create(struct torch_writer **out, const char *path, struct error *err)
{
    *out = NULL;
    struct torch_writer *writer = calloc(1, sizeof(*writer));
    if (!writer)
        return error_set(err, STATUS_NOMEM, "cannot allocate the writer of '%s'", path);
    enum status st = STATUS_OK;
    writer->path = strdup(path);
    writer->pickle_stream = open_memstream(&writer->pickle, &writer->pickle_bytes);
    writer->directory_stream = open_memstream(&writer->directory, &writer->directory_bytes);
    if (!writer->path || !writer->pickle_stream || !writer->directory_stream)
        st = error_set(err, STATUS_NOMEM, "cannot allocate the writer of '%s'", path);
    else if (!(writer->file = fopen(path, "we")))
        st = error_set_errno(err, STATUS_IO, errno, "cannot create '%s'", path);
    if (st != STATUS_OK) {
        torch_writer_destroy(writer);
        return st;
    }
    fputs("\x80\x02}(", writer->pickle_stream);
    pickle_text(writer->pickle_stream, "state_dict");
    fputs("}(", writer->pickle_stream);
    *out = writer;
    return STATUS_OK;
}

enum status torch_writer_add(struct torch_writer *writer, const char *name, int rank,
                             const int64_t *shape, const float *data, struct error *err)
{
    char key[16], entry[32];
    if (writer->n_tensors == TORCH_WRITE_TENSORS_MAX)
        return error_set(err, STATUS_FULL, "'%s' holds %d tensors already", writer->path,
                         writer->n_tensors);
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= shape[i];
    snprintf(key, sizeof(key), "%d", writer->n_tensors++);
    snprintf(entry, sizeof(entry), "data/%s", key);
    pickle_tensor(writer->pickle_stream, name, key, rank, shape, n);
    return put_entry(writer, entry, data, (size_t)n * sizeof(*data), err);
}

static enum status put_end(struct torch_writer *writer, struct error *err)
{
    unsigned char end[22] = {0};
    put32(end, 0x06054b50);
    put16(end + 8, (uint32_t)writer->n_entries);
    put16(end + 10, (uint32_t)writer->n_entries);
    put32(end + 12, (uint32_t)writer->directory_bytes);
    put32(end + 16, (uint32_t)writer->position);
    fwrite(writer->directory, 1, writer->directory_bytes, writer->file);
    fwrite(end, 1, sizeof(end), writer->file);
    int failed = ferror(writer->file);
    if (fclose(writer->file) != 0)
        failed = 1;
    writer->file = NULL;
    return failed ? error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", writer->path)
                  : STATUS_OK;
}

enum status torch_writer_finish(struct torch_writer *writer, struct error *err)
{
    fputs("uu.", writer->pickle_stream);
    if (fflush(writer->pickle_stream) != 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate the pickle of '%s'", writer->path);
    enum status st = put_entry(writer, "data.pkl", writer->pickle, writer->pickle_bytes, err);
    if (st == STATUS_OK)
        st = put_entry(writer, "byteorder", "little", 6, err);
    if (st == STATUS_OK)
        st = put_entry(writer, "version", "3\n", 2, err);
    if (st == STATUS_OK && fflush(writer->directory_stream) != 0)
        st = error_set(err, STATUS_NOMEM, "cannot allocate the directory of '%s'", writer->path);
    return st == STATUS_OK ? put_end(writer, err) : st;
}

void torch_writer_destroy(struct torch_writer *writer)
{
    if (!writer)
        return;
    if (writer->file)
        fclose(writer->file);
    if (writer->pickle_stream)
        fclose(writer->pickle_stream);
    if (writer->directory_stream)
        fclose(writer->directory_stream);
    free(writer->pickle);
    free(writer->directory);
    free(writer->path);
    free(writer);
}
