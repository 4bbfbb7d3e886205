/*
 * checkpoint_index.c - the weight_map, checked entry by entry; its JSON object stays the map.
 */
#include "model/checkpoint_index.h"

#include <stdlib.h>
#include <string.h>

#include "model/json_fields.h"

#define SUFFIX ".safetensors"

struct checkpoint_index {
    json_t *root;
    const json_t *map; /* borrowed from root: tensor -> name of a shard */
    int n_shards;
    const char *shards[CHECKPOINT_SHARDS_MAX];   /* borrowed from the map */
    const char *examples[CHECKPOINT_SHARDS_MAX]; /* a tensor of each, borrowed */
};

/*
 * A shard is a plain name inside the folder: no path, so that an index cannot point elsewhere. A
 * symbolic link of that name is followed, because download caches consist of them and whoever made
 * the folder made the link.
 */
static bool is_plain_name(const char *name)
{
    size_t length = strlen(name), suffix = strlen(SUFFIX);
    return length > suffix && length <= CHECKPOINT_SHARD_NAME_BYTES_MAX && name[0] != '.' &&
           !strchr(name, '/') && !strchr(name, '\\') && strcmp(name + length - suffix, SUFFIX) == 0;
}

static enum status add_shard(struct checkpoint_index *index, const char *tensor, const char *shard,
                             const char *name, struct error *err)
{
    for (int i = 0; i < index->n_shards; i++)
        if (strcmp(index->shards[i], shard) == 0)
            return STATUS_OK;
    if (index->n_shards == CHECKPOINT_SHARDS_MAX)
        return error_set(err, STATUS_INVALID, "'%s' names more than %d files", name,
                         CHECKPOINT_SHARDS_MAX);
    index->shards[index->n_shards] = shard;
    index->examples[index->n_shards++] = tensor;
    return STATUS_OK;
}

static enum status take_map(struct checkpoint_index *index, const char *name, struct error *err)
{
    struct json_fields fields = {index->root, name, ""};
    enum status st = json_fields_object(&fields, "weight_map", true, &index->map, err);
    if (st != STATUS_OK)
        return st;
    const char *tensor;
    json_t *value;
    json_object_foreach((json_t *)index->map, tensor, value)
    {
        const char *shard = json_string_value(value);
        char found[JSON_FIELDS_TEXT_BYTES];
        if (!shard || !is_plain_name(shard))
            return error_set(err, STATUS_INVALID,
                             "'%s': tensor '%.128s' is placed in %s, expected the name of a "
                             ".safetensors file in the same folder",
                             name, tensor, json_fields_describe(found, value));
        st = add_shard(index, tensor, shard, name, err);
        if (st != STATUS_OK)
            return st;
    }
    return STATUS_OK;
}

enum status checkpoint_index_parse(struct checkpoint_index **out, const void *text, size_t bytes,
                                   const char *name, struct error *err)
{
    *out = NULL;
    if (bytes > CHECKPOINT_INDEX_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         bytes, CHECKPOINT_INDEX_BYTES_MAX);
    struct checkpoint_index *index = calloc(1, sizeof(*index));
    if (!index)
        return error_set(err, STATUS_NOMEM, "cannot allocate the index '%s'", name);
    enum status st = json_fields_parse(&index->root, text, bytes, name, err);
    if (st == STATUS_OK)
        st = take_map(index, name, err);
    if (st != STATUS_OK) {
        checkpoint_index_destroy(index);
        return st;
    }
    *out = index;
    return STATUS_OK;
}

void checkpoint_index_destroy(struct checkpoint_index *index)
{
    if (!index)
        return;
    json_decref(index->root);
    free(index);
}

int checkpoint_index_n_shards(const struct checkpoint_index *index)
{
    return index->n_shards;
}

const char *checkpoint_index_shard(const struct checkpoint_index *index, int shard)
{
    return index->shards[shard];
}

const char *checkpoint_index_example(const struct checkpoint_index *index, int shard)
{
    return index->examples[shard];
}

const char *checkpoint_index_place(const struct checkpoint_index *index, const char *tensor)
{
    return json_string_value(json_object_get(index->map, tensor));
}

enum status checkpoint_index_each(const struct checkpoint_index *index,
                                  checkpoint_index_visit visit, void *context)
{
    const char *tensor;
    json_t *value;
    enum status st = STATUS_OK;
    json_object_foreach((json_t *)index->map, tensor, value)
    {
        st = visit(context, tensor, json_string_value(value));
        if (st != STATUS_OK)
            break;
    }
    return st;
}
