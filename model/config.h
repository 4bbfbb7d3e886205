/*
 * config.h - the facts of a transformer: config.json of a Chameleon checkpoint, in all its
 * spellings.
 *
 * In:   config.json as transformers writes it (any version): RoPE as rope_theta + rope_scaling or
 * as rope_parameters. Out:  struct model_config, every field checked against the limits below and
 * against each other. Not read: bos and eos ids (wrong for this model), mask_image_logits,
 * vocabulary_map, dtype (each tensor says its own). Threads: any; nothing is kept.
 */
#ifndef MGPT_MODEL_CONFIG_H
#define MGPT_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    CONFIG_BYTES_MAX = 4 << 20, /* of config.json; a vocabulary_map of 65,536 entries has 2 MB */
    CONFIG_HIDDEN_MAX = 1 << 16,
    CONFIG_INTER_MAX = 1 << 18,
    CONFIG_LAYERS_MAX = 1024,
    CONFIG_HEADS_MAX = 1024,
    CONFIG_HEAD_DIM_MAX = 1024,
    CONFIG_VOCAB_MAX = 1 << 20,
    CONFIG_POSITIONS_MAX = 1 << 20
};

struct model_config {
    int hidden; /* width of the residual stream; n_heads * head_dim */
    int inter;  /* width inside the MLP */
    int n_layers;
    int n_heads;    /* query heads */
    int n_kv_heads; /* divides n_heads */
    int head_dim;   /* even */
    int vocab;
    int max_positions;
    float rms_eps;
    float rope_theta;
    float rope_factor;       /* positions are divided by it; 1: no scaling */
    bool swin_norm;          /* norms stand after the blocks */
    int model_parallel_size; /* rows of the older q_norm and k_norm; divides n_heads and n_kv_heads
                              */
    bool attention_bias;
    bool mlp_bias;
};

/*
 * Reads the file `path`.
 *
 * STATUS_NOT_FOUND, STATUS_IO: the file cannot be read.  STATUS_INVALID: no JSON, a field missing,
 * of the wrong type, out of its limits, or at odds with another.  STATUS_UNSUPPORTED: another
 * model_type, hidden_act, rope type, tied embeddings, quantised weights. The text names file and
 * field, what was found and what was expected.
 */
enum status model_config_load(struct model_config *out, const char *path, struct error *err);

/* The same from memory; `name` stands for the file in error texts. */
enum status model_config_parse(struct model_config *out, const void *text, size_t bytes,
                               const char *name, struct error *err);

#endif
