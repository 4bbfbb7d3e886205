/*
 * kv_size.c - counts blocks, asks the system for its free memory.
 */
#include "daemon/kv_size.h"

#include <stdio.h>
#include <string.h>

#include "daemon/engine.h"
#include "model/unirep.h"

enum {
    PROMPT_TOKENS = 256, /* room for the prompt of such a picture */
    REQUESTS_MIN = 4,
    BLOCKS_MAX = 1 << 22, /* below PLAN_KV_BLOCKS_MAX */
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

/* MemAvailable of /proc/meminfo; -1 when it is not told. */
static int64_t available_bytes(void)
{
    FILE *file = fopen("/proc/meminfo", "r");
    char line[256];
    long long kilobytes = -1;
    while (file && kilobytes < 0 && fgets(line, sizeof(line), file))
        sscanf(line, "MemAvailable: %lld kB", &kilobytes);
    if (file)
        fclose(file);
    return kilobytes < 0 ? -1 : (int64_t)kilobytes * 1024;
}

enum status kv_size_choose(int *n_blocks, const struct engine_options *options, struct error *err)
{
    const struct model_config *config = &options->model->config;
    int target = options->model->settings.target_size;
    struct picture_size size = {target, target};
    int64_t positions = unirep_length(size) + PROMPT_TOKENS;
    if (positions > config->max_positions)
        positions = config->max_positions;
    int n_requests = 2 * (options->n_stages + 1);
    if (n_requests < REQUESTS_MIN)
        n_requests = REQUESTS_MIN;
    int64_t wanted = (int64_t)n_requests * kv_size_blocks((int)positions, 1);
    int64_t least = kv_size_blocks(config->max_positions, 1);
    if (wanted < least)
        wanted = least;
    if (wanted > BLOCKS_MAX)
        wanted = BLOCKS_MAX;
    int64_t block_bytes = kv_size_block_bytes(config, options->compute == ENGINE_F32 ? 4 : 2);
    int64_t free_bytes = available_bytes();
    int64_t fit = free_bytes < 0 ? wanted : free_bytes / 2 / options->n_pipelines / block_bytes;
    if (fit < kv_size_blocks(PLAN_BLOCK_TOKENS, 1))
        return error_set(err, STATUS_NOMEM,
                         "half of the free memory (%lld bytes) holds %lld KV blocks of %lld bytes; "
                         "--kv-blocks sets their number by hand",
                         (long long)free_bytes / 2, (long long)fit, (long long)block_bytes);
    *n_blocks = (int)(wanted < fit ? wanted : fit);
    return STATUS_OK;
}
