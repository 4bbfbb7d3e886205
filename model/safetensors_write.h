/*
 * safetensors_write.h - writes safetensors files, whole or tensor by tensor.
 *
 * Threads: one at a time for each writer.
 */
#ifndef MGPT_MODEL_SAFETENSORS_WRITE_H
#define MGPT_MODEL_SAFETENSORS_WRITE_H

#include "model/tensor.h"

/* One tensor to be written; `data` is read by safetensors_write() only. */
struct safetensors_output {
    const char *name;
    enum dtype dtype;
    int rank;
    int64_t shape[TENSOR_RANK_MAX];
    const void *data;
};

/*
 * Writes n tensors in the order given, the header padded so that the data begins at a multiple
 * of 64. `path` appears under its name when it is complete, replacing an older file.
 * STATUS_INVALID, STATUS_IO, STATUS_NOMEM.
 */
enum status safetensors_write(const char *path, const struct safetensors_output *tensors,
                              int n_tensors, struct error *err);

/* The same for data that is made piece by piece: all shapes first, then exactly their bytes in
 * their order. */
struct safetensors_writer;

enum status safetensors_writer_create(struct safetensors_writer **out, const char *path,
                                      const struct safetensors_output *tensors, int n_tensors,
                                      struct error *err);
enum status safetensors_writer_append(struct safetensors_writer *writer, const void *bytes,
                                      size_t n_bytes, struct error *err);

/* Puts the file in place; STATUS_INVALID unless all bytes were appended. */
enum status safetensors_writer_finish(struct safetensors_writer *writer, struct error *err);

/* Ends the writer; a file not finished is removed. NULL is fine. */
void safetensors_writer_destroy(struct safetensors_writer *writer);

#endif
