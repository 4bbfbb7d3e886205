/*
 * config.c - takes the fields of config.json one by one, then holds them against each other.
 */
#include "model/config.h"

#include <stdlib.h>
#include <string.h>

#include "model/file_bytes.h"
#include "model/json_fields.h"

/* Defaults of Chameleon for the fields that files may leave out. */
#define DEFAULT_RMS_EPS    1e-5
#define DEFAULT_ROPE_THETA 10000.0

static enum status expect_text(const struct json_fields *fields, const char *key, bool required,
                               const char *expected, struct error *err)
{
    const char *found = expected;
    enum status st = json_fields_text(fields, key, required, &found, err);
    if (st == STATUS_OK && strcmp(found, expected) != 0)
        return error_set(err, STATUS_UNSUPPORTED, "'%s': '%s' is '%.60s', expected '%s'",
                         fields->name, key, found, expected);
    return st;
}

/* What would be computed wrongly without a word is refused here. */
static enum status check_kind(const struct json_fields *fields, struct error *err)
{
    enum status st = expect_text(fields, "model_type", true, "chameleon", err);
    if (st == STATUS_OK)
        st = expect_text(fields, "hidden_act", false, "silu", err);
    bool tied = false;
    if (st == STATUS_OK)
        st = json_fields_bool(fields, "tie_word_embeddings", false, &tied, err);
    if (st == STATUS_OK && tied)
        st = error_set(err, STATUS_UNSUPPORTED,
                       "'%s': 'tie_word_embeddings' is true, expected false", fields->name);
    if (st == STATUS_OK && json_fields_has(fields, "quantization_config"))
        st = error_set(
            err, STATUS_UNSUPPORTED,
            "'%s': 'quantization_config' is given, expected plain bf16, fp16 or fp32 weights",
            fields->name);
    return st;
}

static enum status take_sizes(struct model_config *out, const struct json_fields *fields,
                              struct error *err)
{
    const struct {
        const char *key;
        int max;
        int *value;
    } sizes[] = {
        {"hidden_size", CONFIG_HIDDEN_MAX, &out->hidden},
        {"intermediate_size", CONFIG_INTER_MAX, &out->inter},
        {"num_hidden_layers", CONFIG_LAYERS_MAX, &out->n_layers},
        {"num_attention_heads", CONFIG_HEADS_MAX, &out->n_heads},
        {"vocab_size", CONFIG_VOCAB_MAX, &out->vocab},
        {"max_position_embeddings", CONFIG_POSITIONS_MAX, &out->max_positions},
    };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        enum status st =
            json_fields_int(fields, sizes[i].key, true, 1, sizes[i].max, sizes[i].value, err);
        if (st != STATUS_OK)
            return st;
    }
    out->n_kv_heads = out->n_heads;
    out->model_parallel_size = 1;
    enum status st = json_fields_int(fields, "num_key_value_heads", false, 1, CONFIG_HEADS_MAX,
                                     &out->n_kv_heads, err);
    if (st == STATUS_OK)
        st = json_fields_int(fields, "model_parallel_size", false, 1, CONFIG_HEADS_MAX,
                             &out->model_parallel_size, err);
    return st;
}

static enum status take_switches(struct model_config *out, const struct json_fields *fields,
                                 struct error *err)
{
    out->swin_norm = out->attention_bias = out->mlp_bias = false;
    enum status st = json_fields_bool(fields, "swin_norm", false, &out->swin_norm, err);
    if (st == STATUS_OK)
        st = json_fields_bool(fields, "attention_bias", false, &out->attention_bias, err);
    if (st == STATUS_OK)
        st = json_fields_bool(fields, "mlp_bias", false, &out->mlp_bias, err);
    double eps = DEFAULT_RMS_EPS;
    if (st == STATUS_OK)
        st = json_fields_real(fields, "rms_norm_eps", false, 1e-12, 1.0, &eps, err);
    out->rms_eps = (float)eps;
    return st;
}

/* The object with the type and factor of RoPE: rope_scaling or, in newer files, rope_parameters;
 * NULL: neither. */
static enum status rope_object(const struct json_fields *fields, struct json_fields *rope,
                               struct error *err)
{
    const json_t *scaling, *parameters = NULL;
    enum status st = json_fields_object(fields, "rope_scaling", false, &scaling, err);
    if (st == STATUS_OK)
        st = json_fields_object(fields, "rope_parameters", false, &parameters, err);
    if (st != STATUS_OK)
        return st;
    if (scaling && parameters && !json_equal(scaling, parameters))
        return error_set(err, STATUS_INVALID,
                         "'%s': 'rope_scaling' and 'rope_parameters' differ, expected one of them",
                         fields->name);
    *rope = (struct json_fields){parameters ? parameters : scaling, fields->name,
                                 parameters ? "rope_parameters." : "rope_scaling."};
    return STATUS_OK;
}

static enum status take_rope_type(struct model_config *out, const struct json_fields *rope,
                                  struct error *err)
{
    const char *key = json_fields_has(rope, "rope_type") ? "rope_type" : "type";
    const char *type = "default";
    enum status st = json_fields_text(rope, key, false, &type, err);
    if (st != STATUS_OK || strcmp(type, "default") == 0)
        return st;
    if (strcmp(type, "linear") != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "'%s': '%s%s' is '%.60s', expected 'default' or 'linear'", rope->name,
                         rope->path, key, type);
    double factor = 1;
    st = json_fields_real(rope, "factor", true, 1.0, 1e6, &factor, err);
    out->rope_factor = (float)factor;
    return st;
}

static enum status take_rope(struct model_config *out, const struct json_fields *fields,
                             struct error *err)
{
    double theta = DEFAULT_ROPE_THETA;
    struct json_fields rope;
    out->rope_factor = 1;
    enum status st = json_fields_real(fields, "rope_theta", false, 1.0, 1e12, &theta, err);
    if (st == STATUS_OK)
        st = rope_object(fields, &rope, err);
    if (st == STATUS_OK && rope.object) {
        /* The inner rope_theta wins over the outer one, as in transformers. */
        st = json_fields_real(&rope, "rope_theta", false, 1.0, 1e12, &theta, err);
        if (st == STATUS_OK)
            st = take_rope_type(out, &rope, err);
    }
    out->rope_theta = (float)theta;
    return st;
}

static enum status indivisible(const char *name, const char *key, int value, const char *by_key,
                               int by, struct error *err)
{
    return error_set(err, STATUS_INVALID, "'%s': '%s' is %d, expected a multiple of '%s', %d", name,
                     key, value, by_key, by);
}

static enum status check_together(struct model_config *c, const struct json_fields *fields,
                                  struct error *err)
{
    const char *name = fields->name;
    if (c->hidden % c->n_heads != 0)
        return indivisible(name, "hidden_size", c->hidden, "num_attention_heads", c->n_heads, err);
    if (c->n_heads % c->n_kv_heads != 0)
        return indivisible(name, "num_attention_heads", c->n_heads, "num_key_value_heads",
                           c->n_kv_heads, err);
    if (c->n_heads % c->model_parallel_size != 0)
        return indivisible(name, "num_attention_heads", c->n_heads, "model_parallel_size",
                           c->model_parallel_size, err);
    if (c->n_kv_heads % c->model_parallel_size != 0)
        return indivisible(name, "num_key_value_heads", c->n_kv_heads, "model_parallel_size",
                           c->model_parallel_size, err);
    c->head_dim = c->hidden / c->n_heads;
    if (c->head_dim % 2 != 0 || c->head_dim > CONFIG_HEAD_DIM_MAX)
        return error_set(err, STATUS_INVALID,
                         "'%s': 'hidden_size' / 'num_attention_heads' is %d, expected an even "
                         "number of at most %d",
                         name, c->head_dim, CONFIG_HEAD_DIM_MAX);
    int given = c->head_dim;
    enum status st = json_fields_int(fields, "head_dim", false, 1, CONFIG_HIDDEN_MAX, &given, err);
    if (st == STATUS_OK && given != c->head_dim)
        st = error_set(err, STATUS_UNSUPPORTED,
                       "'%s': 'head_dim' is %d, expected 'hidden_size' / 'num_attention_heads', %d",
                       name, given, c->head_dim);
    return st;
}

enum status model_config_parse(struct model_config *out, const void *text, size_t bytes,
                               const char *name, struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (bytes > CONFIG_BYTES_MAX)
        return error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %d", name,
                         bytes, CONFIG_BYTES_MAX);
    json_t *root;
    enum status st = json_fields_parse(&root, text, bytes, name, err);
    if (st != STATUS_OK)
        return st;
    struct json_fields fields = {root, name, ""};
    st = check_kind(&fields, err);
    if (st == STATUS_OK)
        st = take_sizes(out, &fields, err);
    if (st == STATUS_OK)
        st = take_switches(out, &fields, err);
    if (st == STATUS_OK)
        st = take_rope(out, &fields, err);
    if (st == STATUS_OK)
        st = check_together(out, &fields, err);
    json_decref(root);
    return st;
}

enum status model_config_load(struct model_config *out, const char *path, struct error *err)
{
    unsigned char *text;
    size_t bytes;
    memset(out, 0, sizeof(*out));
    enum status st = file_bytes_read(&text, &bytes, path, CONFIG_BYTES_MAX, err);
    if (st == STATUS_OK)
        st = model_config_parse(out, text, bytes, path, err);
    free(text);
    return st;
}
