/*
 * vqgan_checkpoint.h - the picture codec's files: vqgan.yaml and vqgan.ckpt in one folder.
 *
 * In:      the folder (DIR/tokenizer of a checkpoint, or any other that --vq names).
 * Out:     sizes, and tensors of encoder, decoder, quantizer by taming's names, copied out as f32.
 * Owns:    the mapping of vqgan.ckpt. Nothing in the pickle is executed; entries that no reader
 * asks for are skipped. Threads: one at a time.
 */
#ifndef MGPT_MODEL_VQGAN_CHECKPOINT_H
#define MGPT_MODEL_VQGAN_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "model/vqgan_config.h"

struct vqgan_checkpoint;

/* STATUS_NOT_FOUND, STATUS_IO, STATUS_NOMEM, STATUS_INVALID, STATUS_UNSUPPORTED. On error *out is
 * NULL. */
enum status vqgan_checkpoint_open(struct vqgan_checkpoint **out, const char *folder,
                                  struct error *err);

/* The same over the caller's memory (the bytes of a vqgan.ckpt), which must outlive *out; `name`
 * stands in error texts. */
enum status vqgan_checkpoint_open_memory(struct vqgan_checkpoint **out,
                                         const struct vqgan_config *config, const void *ckpt,
                                         size_t n_bytes, const char *name, struct error *err);
void vqgan_checkpoint_close(struct vqgan_checkpoint *checkpoint); /* NULL is fine */

const struct vqgan_config *vqgan_checkpoint_config(const struct vqgan_checkpoint *checkpoint);

/* Distinct names in state_dict, of whatever they name. */
size_t vqgan_checkpoint_count(const struct vqgan_checkpoint *checkpoint);
bool vqgan_checkpoint_has(const struct vqgan_checkpoint *checkpoint, const char *name);

/*
 * Copies tensor `name` ("decoder.conv_in.weight") as contiguous f32 into dst, which holds the
 * product of shape.
 *
 * STATUS_NOT_FOUND: no such entry in state_dict.  STATUS_INVALID: another shape, a storage too
 * short, a wrong CRC, a NaN or an infinity.  STATUS_UNSUPPORTED: neither f32 nor f16 nor bf16.
 */
enum status vqgan_checkpoint_read(struct vqgan_checkpoint *checkpoint, const char *name, int rank,
                                  const int64_t *shape, float *dst, struct error *err);

#endif
