/*
 * checkpoint.c - one folder's shards as one table of tensors, sorted by name.
 */
#include "model/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/checkpoint_index.h"
#include "model/file_bytes.h"
#include "model/safetensors.h"

#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME  "model.safetensors.index.json"
#define CODEC_NAMES "model.vqmodel."
#define LAYER_NAMES "model.layers."

struct table_entry {
    const char *name; /* of the shard's */
    const struct safetensors_entry *entry;
    int shard_index;
};

/* An aligned copy of a tensor that lies unaligned in its file. */
struct copy {
    struct copy *next;
    _Alignas(64) unsigned char bytes[];
};

struct checkpoint {
    char *folder;
    char *index_path; /* NULL: one file without an index */
    struct model_config config;
    int n_shards;
    struct safetensors *shards[CHECKPOINT_SHARDS_MAX];
    size_t n_entries;
    struct table_entry *entries; /* [n_entries] by name */
    struct copy *copies;
};

static bool is_codec(const char *name)
{
    return strncmp(name, CODEC_NAMES, strlen(CODEC_NAMES)) == 0;
}

static char *join(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static enum status no_memory(const char *folder, struct error *err)
{
    return error_set(err, STATUS_NOMEM, "cannot allocate the tables of '%s'", folder);
}

static enum status open_shard(struct checkpoint *checkpoint, const char *name, struct error *err)
{
    char *path = join(checkpoint->folder, name);
    if (!path)
        return no_memory(checkpoint->folder, err);
    enum status st = safetensors_open(&checkpoint->shards[checkpoint->n_shards], path, err);
    if (st == STATUS_OK)
        checkpoint->n_shards++;
    free(path);
    return st;
}

static int by_name(const void *a, const void *b)
{
    const struct table_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* All tensors of all shards but the codec's; a name may occur once. */
static enum status make_table(struct checkpoint *checkpoint, struct error *err)
{
    size_t n = 0;
    for (int i = 0; i < checkpoint->n_shards; i++)
        n += safetensors_count(checkpoint->shards[i]);
    if (n > CHECKPOINT_TENSORS_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu tensors, expected at most %d",
                         checkpoint->folder, n, CHECKPOINT_TENSORS_MAX);
    struct table_entry *table = calloc(n + 1, sizeof(*table));
    if (!table)
        return no_memory(checkpoint->folder, err);
    checkpoint->entries = table;
    n = 0;
    for (int i = 0; i < checkpoint->n_shards; i++)
        for (size_t k = 0; k < safetensors_count(checkpoint->shards[i]); k++) {
            const struct safetensors_entry *entry = safetensors_entry_at(checkpoint->shards[i], k);
            if (!is_codec(entry->name))
                table[n++] = (struct table_entry){entry->name, entry, i};
        }
    checkpoint->n_entries = n;
    qsort(table, n, sizeof(*table), by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(table[i - 1].name, table[i].name) == 0)
            return error_set(
                err, STATUS_INVALID, "tensor '%.128s' is in '%s' and in '%s', expected in one",
                table[i].name, safetensors_path(checkpoint->shards[table[i - 1].shard_index]),
                safetensors_path(checkpoint->shards[table[i].shard_index]));
    return STATUS_OK;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* A layer or a bias that the file has and config.json does not would be left out without a word. */
static enum status check_layer_tensor(const struct checkpoint *checkpoint,
                                      const struct table_entry *entry, struct error *err)
{
    const struct model_config *config = &checkpoint->config;
    int layer = -1, used = 0;
    if (sscanf(entry->name, LAYER_NAMES "%5d.%n", &layer, &used) != 1 || used == 0)
        return STATUS_OK;
    const char *path = safetensors_path(checkpoint->shards[entry->shard_index]);
    const char *part = entry->name + used;
    if (layer < 0 || layer >= config->n_layers)
        return error_set(err, STATUS_INVALID,
                         "'%s' has tensor '%.128s', but 'num_hidden_layers' of config.json is %d",
                         path, entry->name, config->n_layers);
    bool is_bias = ends_with(part, "_proj.bias");
    if (is_bias && strncmp(part, "self_attn.", 10) == 0 && !config->attention_bias)
        return error_set(err, STATUS_INVALID,
                         "'%s' has tensor '%.128s', but 'attention_bias' of config.json is false",
                         path, entry->name);
    if (is_bias && strncmp(part, "mlp.", 4) == 0 && !config->mlp_bias)
        return error_set(err, STATUS_INVALID,
                         "'%s' has tensor '%.128s', but 'mlp_bias' of config.json is false", path,
                         entry->name);
    return STATUS_OK;
}

static enum status check_layers(const struct checkpoint *checkpoint, struct error *err)
{
    enum status st = STATUS_OK;
    for (size_t i = 0; i < checkpoint->n_entries && st == STATUS_OK; i++)
        st = check_layer_tensor(checkpoint, &checkpoint->entries[i], err);
    return st;
}

static const struct table_entry *lookup(const struct checkpoint *checkpoint, const char *name)
{
    struct table_entry key = {.name = name};
    return bsearch(&key, checkpoint->entries, checkpoint->n_entries, sizeof(key), by_name);
}

/* The shards an index names, in its order, so that shard k here is shard k there. */
static enum status open_shards(struct checkpoint *checkpoint, const struct checkpoint_index *index,
                               struct error *err)
{
    for (int i = 0; i < checkpoint_index_n_shards(index); i++) {
        enum status st = open_shard(checkpoint, checkpoint_index_shard(index, i), err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "'%s' places tensor '%.128s' in '%s'",
                              checkpoint->index_path, checkpoint_index_example(index, i),
                              checkpoint_index_shard(index, i));
    }
    return STATUS_OK;
}

struct comparison {
    const struct checkpoint *checkpoint;
    const struct checkpoint_index *index;
    struct error *err;
};

static enum status compare_tensor(void *context, const char *tensor, const char *shard)
{
    const struct comparison *c = context;
    if (is_codec(tensor))
        return STATUS_OK;
    const struct table_entry *entry = lookup(c->checkpoint, tensor);
    if (!entry)
        return error_set(c->err, STATUS_NOT_FOUND,
                         "'%s/%s' has no tensor '%.128s', which '%s' places there",
                         c->checkpoint->folder, shard, tensor, c->checkpoint->index_path);
    const char *found = checkpoint_index_shard(c->index, entry->shard_index);
    if (strcmp(found, shard) != 0)
        return error_set(c->err, STATUS_INVALID,
                         "'%s' places tensor '%.128s' in '%s', but it is in '%s'",
                         c->checkpoint->index_path, tensor, shard, found);
    return STATUS_OK;
}

/* Index and shards must name the same tensors at the same places: files of two savings do not mix
 * unseen. */
static enum status compare_index(const struct checkpoint *checkpoint,
                                 const struct checkpoint_index *index, struct error *err)
{
    struct comparison comparison = {checkpoint, index, err};
    enum status st = checkpoint_index_each(index, compare_tensor, &comparison);
    for (size_t i = 0; i < checkpoint->n_entries && st == STATUS_OK; i++) {
        const struct table_entry *entry = &checkpoint->entries[i];
        if (!checkpoint_index_place(index, entry->name))
            st = error_set(err, STATUS_INVALID, "'%s' does not name tensor '%.128s' of '%s/%s'",
                           checkpoint->index_path, entry->name, checkpoint->folder,
                           checkpoint_index_shard(index, entry->shard_index));
    }
    return st;
}

static enum status open_indexed(struct checkpoint *checkpoint, struct error *err)
{
    unsigned char *text;
    size_t bytes;
    struct checkpoint_index *index = NULL;
    enum status st =
        file_bytes_read(&text, &bytes, checkpoint->index_path, CHECKPOINT_INDEX_BYTES_MAX, err);
    if (st == STATUS_OK)
        st = checkpoint_index_parse(&index, text, bytes, checkpoint->index_path, err);
    free(text);
    if (st == STATUS_OK)
        st = open_shards(checkpoint, index, err);
    if (st == STATUS_OK)
        st = make_table(checkpoint, err);
    if (st == STATUS_OK)
        st = compare_index(checkpoint, index, err);
    checkpoint_index_destroy(index);
    return st;
}

/* A link that leads nowhere exists: opening it then says what is wrong. */
static bool exists(const char *folder, const char *name)
{
    struct stat info;
    char *path = join(folder, name);
    bool there = path && lstat(path, &info) == 0;
    free(path);
    return there;
}

/* Of both, the single file is taken, as transformers does. */
static enum status open_weights(struct checkpoint *checkpoint, struct error *err)
{
    if (exists(checkpoint->folder, SINGLE_NAME)) {
        enum status st = open_shard(checkpoint, SINGLE_NAME, err);
        return st == STATUS_OK ? make_table(checkpoint, err) : st;
    }
    if (exists(checkpoint->folder, INDEX_NAME)) {
        checkpoint->index_path = join(checkpoint->folder, INDEX_NAME);
        return checkpoint->index_path ? open_indexed(checkpoint, err)
                                      : no_memory(checkpoint->folder, err);
    }
    return error_set(err, STATUS_NOT_FOUND, "'%s' has neither '%s' nor '%s'%s", checkpoint->folder,
                     SINGLE_NAME, INDEX_NAME,
                     exists(checkpoint->folder, "pytorch_model.bin.index.json") ||
                             exists(checkpoint->folder, "pytorch_model.bin")
                         ? "; its pytorch_model*.bin is not read, save it as safetensors"
                         : "");
}

enum status checkpoint_open(struct checkpoint **out, const char *folder, struct error *err)
{
    *out = NULL;
    struct checkpoint *checkpoint = calloc(1, sizeof(*checkpoint));
    if (!checkpoint)
        return no_memory(folder, err);
    checkpoint->folder = strdup(folder);
    char *config_path = join(folder, "config.json");
    enum status st = checkpoint->folder && config_path ? STATUS_OK : no_memory(folder, err);
    if (st == STATUS_OK)
        st = model_config_load(&checkpoint->config, config_path, err);
    if (st == STATUS_OK)
        st = open_weights(checkpoint, err);
    if (st == STATUS_OK)
        st = check_layers(checkpoint, err);
    free(config_path);
    if (st != STATUS_OK) {
        checkpoint_close(checkpoint);
        return st;
    }
    *out = checkpoint;
    return STATUS_OK;
}

static void free_copies(struct checkpoint *checkpoint)
{
    while (checkpoint->copies) {
        struct copy *next = checkpoint->copies->next;
        free(checkpoint->copies);
        checkpoint->copies = next;
    }
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    free_copies(checkpoint);
    for (int i = 0; i < checkpoint->n_shards; i++)
        safetensors_close(checkpoint->shards[i]);
    free(checkpoint->entries);
    free(checkpoint->index_path);
    free(checkpoint->folder);
    free(checkpoint);
}

const struct model_config *checkpoint_config(const struct checkpoint *checkpoint)
{
    return &checkpoint->config;
}

const char *checkpoint_folder(const struct checkpoint *checkpoint)
{
    return checkpoint->folder;
}

bool checkpoint_has(const struct checkpoint *checkpoint, const char *name)
{
    return lookup(checkpoint, name) != NULL;
}

static enum status align(struct checkpoint *checkpoint, struct tensor_view *view, struct error *err)
{
    struct copy *copy = aligned_alloc(64, (sizeof(*copy) + view->bytes + 63) / 64 * 64);
    if (!copy)
        return error_set(err, STATUS_NOMEM, "'%s': cannot allocate %zu bytes to align tensor '%s'",
                         view->file, view->bytes, view->name);
    memcpy(copy->bytes, view->data, view->bytes);
    copy->next = checkpoint->copies;
    checkpoint->copies = copy;
    view->data = copy->bytes;
    return STATUS_OK;
}

enum status checkpoint_find(struct checkpoint *checkpoint, const char *name,
                            struct tensor_view *out, struct error *err)
{
    const struct table_entry *entry = lookup(checkpoint, name);
    if (!entry && checkpoint->index_path)
        return error_set(err, STATUS_NOT_FOUND, "'%s' names no tensor '%s'", checkpoint->index_path,
                         name);
    if (!entry)
        return error_set(err, STATUS_NOT_FOUND, "'%s/%s' has no tensor '%s'", checkpoint->folder,
                         SINGLE_NAME, name);
    enum status st =
        safetensors_view(checkpoint->shards[entry->shard_index], entry->entry, out, err);
    if (st == STATUS_OK && !safetensors_is_aligned(out))
        st = align(checkpoint, out, err);
    return st;
}

enum status checkpoint_find_shaped(struct checkpoint *checkpoint, const char *name, int rank,
                                   const int64_t *shape, struct tensor_view *out, struct error *err)
{
    enum status st = checkpoint_find(checkpoint, name, out, err);
    return st == STATUS_OK ? tensor_expect_shape(out, rank, shape, err) : st;
}

void checkpoint_drop_pages(struct checkpoint *checkpoint)
{
    free_copies(checkpoint);
    for (int i = 0; i < checkpoint->n_shards; i++)
        safetensors_drop_pages(checkpoint->shards[i]);
}
