/*
 * kv_size.h - how many KV blocks every stage gets when nobody says.
 *
 * Pure but for kv_size_free_bytes(): the free memory comes in as an argument, so that a test can
 * name it.
 */
#ifndef MGPT_DAEMON_KV_SIZE_H
#define MGPT_DAEMON_KV_SIZE_H

#include <stdint.h>

#include "base/error.h"

struct model_config;

struct kv_size_question {
    const struct model_config *config;
    int target_size; /* pixels; the checkpoint's largest pictures have target x target */
    int n_stages, n_pipelines;
    int item_bytes;       /* 4 for f32, 2 for bf16 */
    int64_t weight_bytes; /* of one whole model, which is still to be loaded */
    int64_t free_bytes;   /* of this machine; below 0: not known */
};

/* Bytes of a block of 64 positions, over all layers of the model. */
int64_t kv_size_block_bytes(const struct model_config *config, int item_bytes);

/* Blocks one request takes at most: guided requests are two sequences. */
int kv_size_blocks(int n_positions, int guided);

/*
 * Room for max(4, 2 (n_stages + 1)) guided pictures of the largest trained size, and at least for
 * one request of all positions; in at most three quarters of the memory that the weights leave.
 *
 * STATUS_NOMEM: not even a block for each of two sequences fits.
 */
enum status kv_size_choose(int *n_blocks, const struct kv_size_question *question,
                           struct error *err);

/* MemAvailable of /proc/meminfo; -1 when it is not told. */
int64_t kv_size_free_bytes(void);

#endif
