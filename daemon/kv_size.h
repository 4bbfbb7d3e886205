/*
 * kv_size.h - how many KV blocks every stage gets when nobody says.
 *
 * Pure: what the workers said of their memory comes in as an argument, so that a test can name it.
 */
#ifndef MGPT_DAEMON_KV_SIZE_H
#define MGPT_DAEMON_KV_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct model_config;

enum { KV_SIZE_MEMORY_BYTES = 112 };

/* A stage and the memory it will lie in, asked when nothing of it was loaded yet. */
struct kv_size_stage {
    char memory[KV_SIZE_MEMORY_BYTES]; /* its name, "HOST cuda:0"; stages with equal names share it
                                        */
    bool is_device;                    /* with memory of its own; else the machine's */
    uint64_t free_bytes, total_bytes;  /* of it; total 0: not known */
    uint64_t need_bytes;               /* of this stage, without keys and values */
    uint64_t block_bytes; /* of one KV block in this stage's layers; 0 without layers */
};

struct kv_size_question {
    const struct model_config *config;
    int target_size; /* pixels; the checkpoint's largest pictures have target x target */
    int n_stages;    /* of one pipeline */
    const struct kv_size_stage *stages; /* [n_all] of all pipelines */
    int n_all;
};

/* Bytes of a block of 64 positions, over all layers of the model. */
int64_t kv_size_block_bytes(const struct model_config *config, int item_bytes);

/* Blocks one request takes at most: guided requests are two sequences. */
int kv_size_blocks(int n_positions, int guided);

/* The same of a guided one, of no more positions than the model has. */
int kv_size_guided_blocks(const struct model_config *config, int64_t n_positions);

/*
 * On devices room for 32 (n_stages + 1) guided pictures of the largest trained size in what is left
 * beside the stages, but for a 32nd part of the device; on the machine for 8 (n_stages + 1) in at
 * most three quarters of it. At least for one request of all positions, where that fits. All
 * stages get the number that fits into the smallest room.
 *
 * STATUS_NOMEM: not one guided picture of the largest trained size fits; the text says where.
 */
enum status kv_size_choose(int *n_blocks, const struct kv_size_question *question,
                           struct error *err);

#endif
