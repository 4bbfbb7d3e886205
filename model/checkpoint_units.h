/*
 * checkpoint_units.h - the tensors of each unit of the transformer, found and shape-checked in one
 * place.
 *
 * Units are counted as in units.h. In: a checkpoint. Out: views as of checkpoint_find(), valid as
 * long as those.
 */
#ifndef MGPT_MODEL_CHECKPOINT_UNITS_H
#define MGPT_MODEL_CHECKPOINT_UNITS_H

#include "model/checkpoint.h"
#include "model/units.h"

/* A dense product: weight [n_out, n_in]; bias [n_out], its data NULL when there is none. */
struct linear_tensors {
    struct tensor_view weight, bias;
};

/*
 * Norm over the heads of q or k: weight and bias [n_rows, head_dim], n_rows = model_parallel_size
 * (older files) or the number of heads. Row h / (heads / n_rows) serves head h.
 */
struct head_norm_tensors {
    struct tensor_view weight, bias;
    int n_rows;
};

struct attention_tensors {
    struct tensor_view norm; /* [hidden] */
    struct linear_tensors q, k, v,
        o; /* [n_heads|n_kv_heads * head_dim, hidden]; o back to hidden */
    struct head_norm_tensors q_norm, k_norm;
};

struct feed_forward_tensors {
    struct tensor_view norm;              /* [hidden] */
    struct linear_tensors gate, up, down; /* [inter, hidden]; down [hidden, inter] */
};

struct head_tensors {
    struct tensor_view norm;    /* [hidden] */
    struct tensor_view lm_head; /* [vocab, hidden] */
};

/* Errors as checkpoint_find_shaped(); on error *out is unspecified. Layers are counted from 0. */
enum status checkpoint_find_embedding(struct checkpoint *checkpoint, struct tensor_view *out,
                                      struct error *err); /* [vocab, hidden] */
enum status checkpoint_find_attention(struct checkpoint *checkpoint, int layer_index,
                                      struct attention_tensors *out, struct error *err);
enum status checkpoint_find_feed_forward(struct checkpoint *checkpoint, int layer_index,
                                         struct feed_forward_tensors *out, struct error *err);
enum status checkpoint_find_head(struct checkpoint *checkpoint, struct head_tensors *out,
                                 struct error *err);

/* Bytes of unit `unit` in the files. */
enum status checkpoint_unit_bytes(struct checkpoint *checkpoint, int unit, size_t *bytes,
                                  struct error *err);

/* Finds and shape-checks the tensors of all units without reading their bytes: what a daemon does
 * before it starts. */
enum status checkpoint_check_units(struct checkpoint *checkpoint, struct error *err);

/*
 * BLAKE2b-256 that two processes compare before they work together: the facts of the configuration;
 * name, dtype and shape of every tensor of units first..last in order; and of each tensor's bytes
 * all when there are at most 64 KiB, else 16 pieces of 4 KiB that start at i * floor((bytes - 4096)
 * / 15), i = 0..15. Cheap (it reads 64 KiB a tensor) and the same for every split of the same bytes
 * into shards. It tells checkpoints apart; it is no proof against forgery.
 */
enum status checkpoint_digest(struct checkpoint *checkpoint, int first_unit, int last_unit,
                              unsigned char digest[CHECKPOINT_DIGEST_BYTES], struct error *err);

#endif
