/*
 * checkpoint_writer.h - checkpoints of random weights, for benchmarks and tests: `mgpt make-checkpoint`.
 *
 * Out: config.json, model*.safetensors (bf16, shards with an index when large), tokenizer.json with the published
 *      special tokens at the published ids, tokenizer/vqgan.{yaml,ckpt} of a small codec. The same options give the same bytes.
 */
#ifndef MGPT_MODEL_CHECKPOINT_WRITER_H
#define MGPT_MODEL_CHECKPOINT_WRITER_H

#include "model/config.h"

/* Weights are normal with a deviation that keeps a forward pass finite at any depth. */
struct checkpoint_writer_options {
    struct model_config config;
    unsigned long long seed;
    unsigned long long shard_bytes_max; /* 0: 2 GiB */
};

/*
 * Parses "7b", "34b" or "hidden=..,inter=..,layers=..,heads=..,kv_heads=..,vocab=.." (also swin=0|1, mp=N, positions=N)
 * into a whole configuration; n_layers > 0 replaces the number of layers.
 * STATUS_INVALID: an unknown shape or key, a number out of its limits, a vocabulary below 8835 (the named tokens).
 */
enum status checkpoint_writer_parse_shape(struct model_config *out, const char *shape, int n_layers,
                                          struct error *err);

/* Writes into `folder`, which is made; it must be empty or not there (STATUS_INVALID). STATUS_IO: disk full and the like. */
enum status checkpoint_writer_write(const char *folder,
                                    const struct checkpoint_writer_options *options,
                                    struct error *err);

#endif
