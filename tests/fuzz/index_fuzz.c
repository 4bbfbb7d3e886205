/*
 * index_fuzz.c - any bytes as model.safetensors.index.json: no shard may be named that lies outside
 * the folder.
 */
#include <string.h>

#include "base/check.h"
#include "model/checkpoint_index.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static enum status visit(void *context, const char *tensor, const char *shard)
{
    CHECK(strcmp(checkpoint_index_place(context, tensor), shard) == 0);
    return STATUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct checkpoint_index *index;
    struct error err;
    if (checkpoint_index_parse(&index, bytes, n_bytes, "fuzz.json", &err) != STATUS_OK)
        return 0;
    for (int i = 0; i < checkpoint_index_n_shards(index); i++) {
        const char *shard = checkpoint_index_shard(index, i);
        CHECK(!strchr(shard, '/'));
        CHECK(shard[0] != '.');
        CHECK(checkpoint_index_place(index, checkpoint_index_example(index, i)) == shard);
    }
    checkpoint_index_each(index, visit, index);
    checkpoint_index_destroy(index);
    return 0;
}
