/*
 * kv_size.h - how many KV blocks every stage gets when nobody says.
 */
#ifndef MGPT_DAEMON_KV_SIZE_H
#define MGPT_DAEMON_KV_SIZE_H

#include <stdint.h>

#include "base/error.h"

struct engine_options;
struct model_config;

/* Bytes of a block of 64 positions, over all layers of the model. item_bytes: 4 for f32, 2 for
 * bf16. */
int64_t kv_size_block_bytes(const struct model_config *config, int item_bytes);

/* Blocks one request takes at most: guided requests are two sequences. */
int kv_size_blocks(int n_positions, int guided);

/*
 * Room for max(4, 2 (n_stages + 1)) guided pictures of the largest trained size, in at most half of
 * the free memory, and of all positions when they fit. STATUS_NOMEM: not even a few blocks fit.
 */
enum status kv_size_choose(int *n_blocks, const struct engine_options *options, struct error *err);

#endif
