/*
 * torch_write.h - writes a dict {"state_dict": {name: f32 tensor, ...}} as torch.save does: a zip
 * of stored entries with a pickle of protocol 2. Other programs read it with
 * torch.load(weights_only=True).
 *
 * Threads: one at a time for each writer.
 */
#ifndef MGPT_MODEL_TORCH_WRITE_H
#define MGPT_MODEL_TORCH_WRITE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { TORCH_WRITE_TENSORS_MAX = 4096 };

struct torch_writer;

/* Creates `path`. STATUS_IO, STATUS_NOMEM. On error *out is NULL. */
enum status torch_writer_create(struct torch_writer **out, const char *path, struct error *err);

/* Adds a contiguous tensor; its data goes to the file at once. */
enum status torch_writer_add(struct torch_writer *writer, const char *name, int rank,
                             const int64_t *shape, const float *data, struct error *err);

/* Writes pickle and directory. Without it the file is no archive. */
enum status torch_writer_finish(struct torch_writer *writer, struct error *err);
void torch_writer_destroy(struct torch_writer *writer); /* NULL is fine */

#endif
