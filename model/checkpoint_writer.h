/*
 * checkpoint_writer.h - checkpoints of random weights, for benchmarks and tests: `mgpt
 * make-checkpoint`.
 *
 * Out: config.json, model.safetensors or shards with an index (bf16), tokenizer.json with the
 * published names at the published ids, tokenizer/vqgan.yaml and vqgan.ckpt of a small codec. The
 * same options give the same bytes.
 */
#ifndef MGPT_MODEL_CHECKPOINT_WRITER_H
#define MGPT_MODEL_CHECKPOINT_WRITER_H

#include <stdint.h>

#include "model/config.h"

enum { CHECKPOINT_WRITER_VOCAB_MIN = 9476 }; /* named tokens, codes, and the 256 bytes */

struct checkpoint_writer_options {
    struct model_config config;
    uint64_t seed;
    uint64_t shard_bytes_max; /* 0: 2 GiB. A tensor is never cut, so a shard of one may be larger */
};

/*
 * Parses "7b", "34b" or "hidden=..,inter=..,layers=..,heads=..,kv_heads=..,vocab=.." (all six;
 * further swin=0|1, mp=N, positions=N) into a whole configuration; n_layers > 0 replaces the number
 * of layers, 0 leaves it. STATUS_INVALID: an unknown shape or key, a key missing, numbers that
 * model_config_parse() refuses, a vocabulary below CHECKPOINT_WRITER_VOCAB_MIN.
 */
enum status checkpoint_writer_parse_shape(struct model_config *out, const char *shape, int n_layers,
                                          struct error *err);

/*
 * Writes a checkpoint into `folder`, which is made; one that is there must be empty. config.json
 * comes last, so that a folder that was not finished does not open. Weights are normal, with
 * deviations that keep a forward pass finite. STATUS_INVALID: the folder is not empty.  STATUS_IO:
 * a full disk and the like.  STATUS_NOMEM.
 */
enum status checkpoint_writer_write(const char *folder,
                                    const struct checkpoint_writer_options *options,
                                    struct error *err);

#endif
