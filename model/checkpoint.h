/*
 * checkpoint.h - a folder with config.json and the transformer's weights, one safetensors file or
 * shards with an index.
 *
 * In:      model.safetensors, or model.safetensors.index.json and the shards it names (plain names
 * inside the folder). Out:     the configuration, and views of tensors by name, straight from the
 * mapped files. Owns:    the mappings. Nothing is read before it is asked for;
 * checkpoint_drop_pages() gives the memory back. Ignores: tensors named model.vqmodel.* (the codec
 * comes from vqgan.ckpt). Threads: one at a time. A shard that is cut short by others while it is
 * mapped ends the process (SIGBUS).
 */
#ifndef MGPT_MODEL_CHECKPOINT_H
#define MGPT_MODEL_CHECKPOINT_H

#include <stdbool.h>

#include "model/config.h"
#include "model/tensor.h"

enum {
    CHECKPOINT_TENSORS_MAX = 1 << 16, /* over all shards */
    CHECKPOINT_DIGEST_BYTES = 32
};

struct checkpoint;

/*
 * Reads config.json, the index and the headers of all shards; checks that index and shards agree.
 *
 * STATUS_NOT_FOUND: no folder, no config.json, no weights, or a shard the index names is missing.
 * STATUS_INVALID: any of the files is wrong; the text says which and how.  On error *out is NULL.
 */
enum status checkpoint_open(struct checkpoint **out, const char *folder, struct error *err);
void checkpoint_close(struct checkpoint *checkpoint); /* NULL is fine; all views end */

const struct model_config *checkpoint_config(const struct checkpoint *checkpoint);
const char *checkpoint_folder(const struct checkpoint *checkpoint);

bool checkpoint_has(const struct checkpoint *checkpoint, const char *name);

/*
 * A view of a tensor, valid until the next checkpoint_drop_pages() or checkpoint_close().
 *
 * STATUS_NOT_FOUND names the file that should have had it; STATUS_UNSUPPORTED: not F32, F16 or
 * BF16; STATUS_NOMEM: it lies unaligned in the file, and the copy that is needed then does not fit.
 */
enum status checkpoint_find(struct checkpoint *checkpoint, const char *name,
                            struct tensor_view *out, struct error *err);

/* checkpoint_find() and tensor_expect_shape(). */
enum status checkpoint_find_shaped(struct checkpoint *checkpoint, const char *name, int rank,
                                   const int64_t *shape, struct tensor_view *out,
                                   struct error *err);

/* Ends all views and gives the pages of the mappings back to the system; files stay open and can be
 * read again. */
void checkpoint_drop_pages(struct checkpoint *checkpoint);

#endif
