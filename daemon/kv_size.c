/*
 * kv_size.c - counts blocks, asks the system for its free memory.
 */
#include "daemon/kv_size.h"

#include <stdio.h>

#include "model/config.h"
#include "model/unirep.h"
#include "scheduler/plan.h"

enum {
    PROMPT_TOKENS = 256, /* room for the prompt of such a picture */
    REQUESTS_MIN = 4,
    BLOCKS_MAX = 1 << 22 /* below PLAN_KV_BLOCKS_MAX */
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

int64_t kv_size_free_bytes(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[256];
    long long kilobytes = -1;
    while (file && kilobytes < 0 && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %lld kB", &kilobytes) != 1)
            kilobytes = -1;
    if (file)
        fclose(file);
    return kilobytes < 0 ? -1 : (int64_t)kilobytes * 1024;
}

static int64_t wanted_blocks(const struct kv_size_question *question)
{
    struct picture_size size = {question->target_size, question->target_size};
    int64_t positions = unirep_length(size) + PROMPT_TOKENS;
    int max_positions = question->config->max_positions;
    if (positions > max_positions)
        positions = max_positions;
    int n_requests = 2 * (question->n_stages + 1);
    if (n_requests < REQUESTS_MIN)
        n_requests = REQUESTS_MIN;
    int64_t wanted = (int64_t)n_requests * kv_size_blocks((int)positions, 1);
    int64_t whole = kv_size_blocks(max_positions, 1);
    if (wanted < whole)
        wanted = whole;
    return wanted < BLOCKS_MAX ? wanted : BLOCKS_MAX;
}

enum status kv_size_choose(int *n_blocks, const struct kv_size_question *question,
                           struct error *err)
{
    int64_t wanted = wanted_blocks(question);
    int64_t block_bytes = kv_size_block_bytes(question->config, question->item_bytes);
    int64_t rest_bytes = question->free_bytes - question->n_pipelines * question->weight_bytes;
    int64_t fit = rest_bytes > 0 ? rest_bytes / 4 * 3 / question->n_pipelines / block_bytes : 0;
    if (question->free_bytes < 0 || fit > wanted)
        fit = wanted;
    if (fit < kv_size_blocks(0, 1))
        return error_set(err, STATUS_NOMEM,
                         "%lld MB are free, the weights of %d pipelines take %lld MB: no room for "
                         "KV blocks of %lld kB; "
                         "--kv-blocks sets their number by hand",
                         (long long)question->free_bytes >> 20, question->n_pipelines,
                         (long long)(question->n_pipelines * question->weight_bytes) >> 20,
                         (long long)block_bytes >> 10);
    *n_blocks = (int)fit;
    return STATUS_OK;
}
