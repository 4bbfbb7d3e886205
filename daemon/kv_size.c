/*
 * kv_size.c - counts blocks.
 */
#include "daemon/kv_size.h"

#include <string.h>

#include "model/config.h"
#include "model/unirep.h"
#include "scheduler/plan.h"

enum {
    PROMPT_TOKENS = 256, /* room for the prompt of such a picture */
    /* Of a micro-batch: two rows each. The CPU computes some 8 rows (AVX2) to 32 (AMX) in the time
     * in which it reads the weights; a device more. */
    MACHINE_REQUESTS = 8,
    DEVICE_REQUESTS = 32,
    DEVICE_MARGIN =
        32, /* this part of it stays free: for NCCL, the driver, what lies between blocks */
    BLOCKS_MAX = 1 << 22, /* below PLAN_KV_BLOCKS_MAX */
    MIB_SHIFT = 20
};

int64_t kv_size_block_bytes(const struct model_config *config, int item_bytes)
{
    return (int64_t)2 * config->n_layers * config->n_kv_heads * config->head_dim *
           PLAN_BLOCK_TOKENS * item_bytes;
}

int kv_size_blocks(int n_positions, int guided)
{
    return (n_positions / PLAN_BLOCK_TOKENS + 1) * (guided ? 2 : 1);
}

int kv_size_guided_blocks(const struct model_config *config, int64_t n_positions)
{
    bool fits = n_positions < config->max_positions;
    return kv_size_blocks(fits ? (int)n_positions : config->max_positions, 1);
}

/* Of a guided picture of the largest trained size. */
static int picture_blocks(const struct kv_size_question *question)
{
    struct picture_size size = {question->target_size, question->target_size};
    return kv_size_guided_blocks(question->config, unirep_length(size) + PROMPT_TOKENS);
}

static int64_t wanted_blocks(const struct kv_size_question *question)
{
    bool has_device = false;
    for (int i = 0; i < question->n_all; i++)
        has_device |= question->stages[i].is_device;
    int n_requests = (has_device ? DEVICE_REQUESTS : MACHINE_REQUESTS) * (question->n_stages + 1);
    int64_t wanted = (int64_t)n_requests * picture_blocks(question);
    int64_t whole = kv_size_blocks(question->config->max_positions, 1);
    if (wanted < whole)
        wanted = whole;
    return wanted < BLOCKS_MAX ? wanted : BLOCKS_MAX;
}

/* All stages that lie in one memory. */
struct pool {
    const struct kv_size_stage *first;
    uint64_t free_bytes, need_bytes, margin_bytes, block_bytes;
    int64_t fit; /* blocks */
};

static struct pool measure(const struct kv_size_question *question, const char *memory)
{
    struct pool pool = {.free_bytes = UINT64_MAX};
    for (int i = 0; i < question->n_all; i++) {
        const struct kv_size_stage *stage = &question->stages[i];
        if (strcmp(stage->memory, memory) != 0)
            continue;
        pool.first = pool.first ? pool.first : stage;
        pool.need_bytes += stage->need_bytes;
        pool.block_bytes += stage->block_bytes;
        pool.free_bytes = stage->free_bytes < pool.free_bytes ? stage->free_bytes : pool.free_bytes;
    }
    uint64_t rest = pool.free_bytes > pool.need_bytes ? pool.free_bytes - pool.need_bytes : 0;
    pool.margin_bytes = pool.first->is_device ? pool.first->total_bytes / DEVICE_MARGIN : rest / 4;
    rest = rest > pool.margin_bytes ? rest - pool.margin_bytes : 0;
    bool is_bound = pool.block_bytes > 0 && pool.first->total_bytes > 0;
    uint64_t fit = is_bound ? rest / pool.block_bytes : BLOCKS_MAX;
    pool.fit = fit < BLOCKS_MAX ? (int64_t)fit : BLOCKS_MAX;
    return pool;
}

static enum status refuse(const struct pool *pool, int least, struct error *err)
{
    return error_set(
        err, STATUS_NOMEM,
        "%s has %llu of %llu MiB free; the stages there need %llu MiB and leave %llu free, so %lld "
        "KV blocks of %llu kB fit and one picture needs %d: use more --stages or more memory; "
        "--kv-blocks sets the number by hand",
        pool->first->memory, (unsigned long long)pool->free_bytes >> MIB_SHIFT,
        (unsigned long long)pool->first->total_bytes >> MIB_SHIFT,
        (unsigned long long)pool->need_bytes >> MIB_SHIFT,
        (unsigned long long)pool->margin_bytes >> MIB_SHIFT, (long long)pool->fit,
        (unsigned long long)pool->block_bytes >> 10, least);
}

enum status kv_size_choose(int *n_blocks, const struct kv_size_question *question,
                           struct error *err)
{
    int64_t blocks = wanted_blocks(question);
    int least = picture_blocks(question);
    for (int i = 0; i < question->n_all; i++) {
        struct pool pool = measure(question, question->stages[i].memory);
        if (pool.fit < least)
            return refuse(&pool, least, err);
        blocks = pool.fit < blocks ? pool.fit : blocks;
    }
    *n_blocks = (int)blocks;
    return STATUS_OK;
}
