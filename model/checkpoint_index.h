/*
 * checkpoint_index.h - model.safetensors.index.json: which shard holds which tensor.
 *
 * In:   the JSON text, untrusted.   Out: shard names that are plain names inside the folder, and
 * the map. Threads: after parsing any number may read.
 */
#ifndef MGPT_MODEL_CHECKPOINT_INDEX_H
#define MGPT_MODEL_CHECKPOINT_INDEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    CHECKPOINT_SHARDS_MAX = 512,
    CHECKPOINT_INDEX_BYTES_MAX = 1 << 20, /* see JSON_FIELDS_GROWTH */
    CHECKPOINT_SHARD_NAME_BYTES_MAX = 255
};

struct checkpoint_index;

/*
 * STATUS_INVALID: no JSON, no weight_map, or a place that is not the plain name of a .safetensors
 * file; `name` stands for the file in error texts.  STATUS_NOMEM.  On error *out is NULL.
 */
enum status checkpoint_index_parse(struct checkpoint_index **out, const void *text, size_t bytes,
                                   const char *name, struct error *err);
void checkpoint_index_destroy(struct checkpoint_index *index); /* NULL is fine */

/* The distinct shards in the order the map names them. */
int checkpoint_index_n_shards(const struct checkpoint_index *index);
const char *checkpoint_index_shard(const struct checkpoint_index *index, int shard);

/* A tensor the map places in that shard: for the text when the shard cannot be opened. */
const char *checkpoint_index_example(const struct checkpoint_index *index, int shard);

/* The shard's name for a tensor, NULL when the map does not name it. */
const char *checkpoint_index_place(const struct checkpoint_index *index, const char *tensor);

/* Walks the map: called with each tensor and its shard's name until it does not return STATUS_OK;
 * that is returned. */
typedef enum status (*checkpoint_index_visit)(void *context, const char *tensor, const char *shard);
enum status checkpoint_index_each(const struct checkpoint_index *index,
                                  checkpoint_index_visit visit, void *context);

#endif
