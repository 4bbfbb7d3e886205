/*
 * checkpoint_writer_weights.c - the transformer's tensors in the order of its units, cut into
 * shards.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/checkpoint_writer_parts.h"
#include "model/random_weights.h"
#include "model/safetensors_write.h"

enum { NAME_BYTES = 80, PIECE = 1 << 20, LAYER_TENSORS_MAX = 20 };

static const uint64_t shard_bytes_default = (uint64_t)2 << 30;

struct made_tensor {
    char name[NAME_BYTES];
    int rank;
    int64_t shape[2];
    float mean, deviation;
};

struct plan {
    struct made_tensor *tensors;
    int n_tensors;
};

static void add(struct plan *plan, const char *prefix, const char *name, int64_t rows,
                int64_t columns, float mean, float deviation)
{
    struct made_tensor *tensor = &plan->tensors[plan->n_tensors++];
    snprintf(tensor->name, sizeof(tensor->name), "%s%s", prefix, name);
    tensor->rank = columns ? 2 : 1;
    tensor->shape[0] = rows;
    tensor->shape[1] = columns;
    tensor->mean = mean;
    tensor->deviation = deviation;
}

/* Deviation 1 / sqrt(n_in) keeps the size of what goes through; `gain` makes the two ends of a
 * residual branch quiet. */
static void add_linear(struct plan *plan, const char *prefix, const char *name, int n_out, int n_in,
                       bool has_bias, float gain)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof(full), "%s.weight", name);
    add(plan, prefix, full, n_out, n_in, 0, gain / sqrtf((float)n_in));
    snprintf(full, sizeof(full), "%s.bias", name);
    if (has_bias)
        add(plan, prefix, full, n_out, 0, 0, 0.02f);
}

static void add_layer(struct plan *plan, const struct model_config *c, int layer)
{
    char prefix[32];
    int kv = c->n_kv_heads * c->head_dim, rows = c->model_parallel_size;
    float quiet = 1 / sqrtf(2.0f * (float)c->n_layers);
    snprintf(prefix, sizeof(prefix), "model.layers.%d.", layer);
    add(plan, prefix, "input_layernorm.weight", c->hidden, 0, 1, 0.02f);
    add(plan, prefix, "post_attention_layernorm.weight", c->hidden, 0, 1, 0.02f);
    add_linear(plan, prefix, "self_attn.q_proj", c->hidden, c->hidden, c->attention_bias, 1);
    add_linear(plan, prefix, "self_attn.k_proj", kv, c->hidden, c->attention_bias, 1);
    add_linear(plan, prefix, "self_attn.v_proj", kv, c->hidden, c->attention_bias, 1);
    add_linear(plan, prefix, "self_attn.o_proj", c->hidden, c->hidden, c->attention_bias, quiet);
    add(plan, prefix, "self_attn.q_norm.weight", rows, c->head_dim, 1, 0.02f);
    add(plan, prefix, "self_attn.q_norm.bias", rows, c->head_dim, 0, 0.02f);
    add(plan, prefix, "self_attn.k_norm.weight", rows, c->head_dim, 1, 0.02f);
    add(plan, prefix, "self_attn.k_norm.bias", rows, c->head_dim, 0, 0.02f);
    add_linear(plan, prefix, "mlp.gate_proj", c->inter, c->hidden, c->mlp_bias, 1);
    add_linear(plan, prefix, "mlp.up_proj", c->inter, c->hidden, c->mlp_bias, 1);
    add_linear(plan, prefix, "mlp.down_proj", c->hidden, c->inter, c->mlp_bias, quiet);
}

static uint64_t bytes_of(const struct made_tensor *tensor)
{
    return 2 * (uint64_t)tensor->shape[0] * (uint64_t)(tensor->rank == 2 ? tensor->shape[1] : 1);
}

/* Tensors first .. first + *n are one shard. */
static uint64_t cut_shard(const struct plan *plan, int first, int *n, uint64_t bytes_max)
{
    uint64_t bytes = 0;
    for (*n = 0; first + *n < plan->n_tensors; (*n)++) {
        uint64_t more = bytes_of(&plan->tensors[first + *n]);
        if (*n > 0 && bytes + more > bytes_max)
            break;
        bytes += more;
    }
    return bytes;
}

static enum status fill(struct safetensors_writer *writer, struct random_weights *random,
                        bf16 *piece, const struct made_tensor *tensor, uint64_t seed,
                        struct error *err)
{
    random_weights_start(random, seed, tensor->name, tensor->mean, tensor->deviation);
    enum status st = STATUS_OK;
    for (uint64_t left = bytes_of(tensor) / 2; left > 0 && st == STATUS_OK;) {
        size_t n = left < PIECE ? (size_t)left : PIECE;
        random_weights_fill_bf16(random, piece, n);
        st = safetensors_writer_append(writer, piece, n * sizeof(*piece), err);
        left -= n;
    }
    return st;
}

static enum status write_shard(const char *path, const struct made_tensor *tensors, int n_tensors,
                               uint64_t seed, struct random_weights *random, struct error *err)
{
    struct safetensors_writer *writer = NULL;
    struct safetensors_output *outputs = calloc((size_t)n_tensors, sizeof(*outputs));
    bf16 *piece = malloc(PIECE * sizeof(*piece));
    enum status st = STATUS_OK;
    if (!outputs || !piece)
        st = error_set(err, STATUS_NOMEM, "cannot allocate the tables of '%s'", path);
    for (int i = 0; i < n_tensors && st == STATUS_OK; i++)
        outputs[i] =
            (struct safetensors_output){.name = tensors[i].name,
                                        .dtype = DTYPE_BF16,
                                        .rank = tensors[i].rank,
                                        .shape = {tensors[i].shape[0], tensors[i].shape[1]}};
    if (st == STATUS_OK)
        st = safetensors_writer_create(&writer, path, outputs, n_tensors, err);
    for (int i = 0; i < n_tensors && st == STATUS_OK; i++)
        st = fill(writer, random, piece, &tensors[i], seed, err);
    if (st == STATUS_OK)
        st = safetensors_writer_finish(writer, err);
    safetensors_writer_destroy(writer);
    free(piece);
    free(outputs);
    return st;
}

static enum status write_index(const char *folder, const json_t *map, uint64_t total,
                               struct error *err)
{
    json_t *root =
        json_pack("{s{sI}sO}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text)
        return error_set(err, STATUS_NOMEM, "cannot make the index of '%s'", folder);
    enum status st = checkpoint_writer_text(folder, "model.safetensors.index.json", text, err);
    free(text);
    return st;
}

/* All shards, their names noted in `map`. */
static enum status write_shards(const char *folder, const struct plan *plan, uint64_t bytes_max,
                                uint64_t seed, struct random_weights *random, json_t *map,
                                struct error *err)
{
    int n_shards = 0, shard = 0, n;
    for (int first = 0; first < plan->n_tensors; first += n, n_shards++)
        cut_shard(plan, first, &n, bytes_max);
    uint64_t total = 0;
    enum status st = STATUS_OK;
    for (int first = 0; first < plan->n_tensors && st == STATUS_OK; first += n) {
        char name[64] = "model.safetensors", *path;
        total += cut_shard(plan, first, &n, bytes_max);
        if (n_shards > 1)
            snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", ++shard, n_shards);
        if (asprintf(&path, "%s/%s", folder, name) < 0)
            return error_set(err, STATUS_NOMEM, "cannot allocate the path of '%s'", name);
        st = write_shard(path, &plan->tensors[first], n, seed, random, err);
        free(path);
        for (int i = first; i < first + n; i++)
            json_object_set_new(map, plan->tensors[i].name, json_string(name));
    }
    if (st == STATUS_OK && n_shards > 1)
        st = write_index(folder, map, total, err);
    return st;
}

enum status checkpoint_writer_weights(const char *folder,
                                      const struct checkpoint_writer_options *options,
                                      struct error *err)
{
    const struct model_config *c = &options->config;
    struct plan plan = {calloc((size_t)c->n_layers * LAYER_TENSORS_MAX + 3, sizeof(*plan.tensors)),
                        0};
    struct random_weights *random = NULL;
    json_t *map = json_object();
    enum status st = STATUS_OK;
    if (!plan.tensors || !map)
        st = error_set(err, STATUS_NOMEM, "cannot allocate the plan of %d layers", c->n_layers);
    else
        st = random_weights_create(&random, err);
    if (st == STATUS_OK) {
        add(&plan, "", "model.embed_tokens.weight", c->vocab, c->hidden, 0, 1);
        for (int layer = 0; layer < c->n_layers; layer++)
            add_layer(&plan, c, layer);
        add(&plan, "", "model.norm.weight", c->hidden, 0, 1, 0.02f);
        add(&plan, "", "lm_head.weight", c->vocab, c->hidden, 0, 1 / sqrtf((float)c->hidden));
        st = write_shards(folder, &plan,
                          options->shard_bytes_max ? options->shard_bytes_max : shard_bytes_default,
                          options->seed, random, map, err);
    }
    json_decref(map);
    random_weights_destroy(random);
    free(plan.tensors);
    return st;
}
