/*
 * checkpoint_units.c - names and shapes of the published files, and the digest over them.
 */
#include "model/checkpoint_units.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"

enum { PREFIX_BYTES = 64, NAME_BYTES = 192 };

static enum status find_weight(struct checkpoint *checkpoint, const char *prefix, const char *name,
                               int rank, const int64_t *shape, struct tensor_view *out,
                               struct error *err)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof(full), "%s%s", prefix, name);
    return checkpoint_find_shaped(checkpoint, full, rank, shape, out, err);
}

static enum status find_linear(struct checkpoint *checkpoint, const char *prefix, const char *name,
                               int n_out, int n_in, bool has_bias, struct linear_tensors *out,
                               struct error *err)
{
    char full[NAME_BYTES];
    memset(&out->bias, 0, sizeof(out->bias));
    snprintf(full, sizeof(full), "%s.weight", name);
    enum status st =
        find_weight(checkpoint, prefix, full, 2, (int64_t[]){n_out, n_in}, &out->weight, err);
    if (st != STATUS_OK || !has_bias)
        return st;
    snprintf(full, sizeof(full), "%s.bias", name);
    return find_weight(checkpoint, prefix, full, 1, (int64_t[]){n_out}, &out->bias, err);
}

/* Older files have a row for each part of the model-parallel training, newer ones a row for each
 * head. */
static enum status find_head_norm(struct checkpoint *checkpoint, const char *prefix,
                                  const char *name, int n_heads, struct head_norm_tensors *out,
                                  struct error *err)
{
    const struct model_config *config = checkpoint_config(checkpoint);
    char full[NAME_BYTES];
    snprintf(full, sizeof(full), "%s%s.weight", prefix, name);
    enum status st = checkpoint_find(checkpoint, full, &out->weight, err);
    if (st != STATUS_OK)
        return st;
    const struct tensor_view *weight = &out->weight;
    bool fits = weight->rank == 2 && weight->shape[1] == config->head_dim &&
                (weight->shape[0] == config->model_parallel_size || weight->shape[0] == n_heads);
    if (!fits) {
        char found[TENSOR_SHAPE_TEXT_BYTES];
        return error_set(err, STATUS_INVALID,
                         "'%s': tensor '%s' is %s, expected [%d, %d] or [%d, %d]", weight->file,
                         weight->name, tensor_format_shape(found, weight->rank, weight->shape),
                         config->model_parallel_size, config->head_dim, n_heads, config->head_dim);
    }
    out->n_rows = (int)weight->shape[0];
    snprintf(full, sizeof(full), "%s.bias", name);
    return find_weight(checkpoint, prefix, full, 2, weight->shape, &out->bias, err);
}

enum status checkpoint_find_embedding(struct checkpoint *checkpoint, struct tensor_view *out,
                                      struct error *err)
{
    const struct model_config *config = checkpoint_config(checkpoint);
    return checkpoint_find_shaped(checkpoint, "model.embed_tokens.weight", 2,
                                  (int64_t[]){config->vocab, config->hidden}, out, err);
}

static enum status find_norm(struct checkpoint *checkpoint, const char *prefix, const char *name,
                             struct tensor_view *out, struct error *err)
{
    int64_t width[1] = {checkpoint_config(checkpoint)->hidden};
    return find_weight(checkpoint, prefix, name, 1, width, out, err);
}

enum status checkpoint_find_attention(struct checkpoint *checkpoint, int layer_index,
                                      struct attention_tensors *out, struct error *err)
{
    const struct model_config *c = checkpoint_config(checkpoint);
    char prefix[PREFIX_BYTES];
    int kv = c->n_kv_heads * c->head_dim;
    bool bias = c->attention_bias;
    snprintf(prefix, sizeof(prefix), "model.layers.%d.", layer_index);
    enum status st = find_norm(checkpoint, prefix, "input_layernorm.weight", &out->norm, err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "self_attn.q_proj", c->hidden, c->hidden, bias,
                         &out->q, err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "self_attn.k_proj", kv, c->hidden, bias, &out->k, err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "self_attn.v_proj", kv, c->hidden, bias, &out->v, err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "self_attn.o_proj", c->hidden, c->hidden, bias,
                         &out->o, err);
    if (st == STATUS_OK)
        st = find_head_norm(checkpoint, prefix, "self_attn.q_norm", c->n_heads, &out->q_norm, err);
    if (st == STATUS_OK)
        st = find_head_norm(checkpoint, prefix, "self_attn.k_norm", c->n_kv_heads, &out->k_norm,
                            err);
    return st;
}

enum status checkpoint_find_feed_forward(struct checkpoint *checkpoint, int layer_index,
                                         struct feed_forward_tensors *out, struct error *err)
{
    const struct model_config *c = checkpoint_config(checkpoint);
    char prefix[PREFIX_BYTES];
    bool bias = c->mlp_bias;
    snprintf(prefix, sizeof(prefix), "model.layers.%d.", layer_index);
    enum status st =
        find_norm(checkpoint, prefix, "post_attention_layernorm.weight", &out->norm, err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "mlp.gate_proj", c->inter, c->hidden, bias, &out->gate,
                         err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "mlp.up_proj", c->inter, c->hidden, bias, &out->up,
                         err);
    if (st == STATUS_OK)
        st = find_linear(checkpoint, prefix, "mlp.down_proj", c->hidden, c->inter, bias, &out->down,
                         err);
    return st;
}

enum status checkpoint_find_head(struct checkpoint *checkpoint, struct head_tensors *out,
                                 struct error *err)
{
    const struct model_config *c = checkpoint_config(checkpoint);
    enum status st = checkpoint_find_shaped(checkpoint, "model.norm.weight", 1,
                                            (int64_t[]){c->hidden}, &out->norm, err);
    if (st == STATUS_OK)
        st = checkpoint_find_shaped(checkpoint, "lm_head.weight", 2,
                                    (int64_t[]){c->vocab, c->hidden}, &out->lm_head, err);
    return st;
}

enum { UNIT_TENSORS_MAX = 13 };

/* The tensors of a unit in a fixed order. */
struct unit_tensors {
    struct tensor_view views[UNIT_TENSORS_MAX];
    int n;
};

static void append(struct unit_tensors *out, const struct tensor_view *view)
{
    CHECK(out->n < UNIT_TENSORS_MAX);
    out->views[out->n++] = *view;
}

static void append_linear(struct unit_tensors *out, const struct linear_tensors *linear)
{
    append(out, &linear->weight);
    if (linear->bias.data)
        append(out, &linear->bias);
}

static enum status list_attention(struct checkpoint *checkpoint, int layer,
                                  struct unit_tensors *out, struct error *err)
{
    struct attention_tensors found;
    enum status st = checkpoint_find_attention(checkpoint, layer, &found, err);
    if (st != STATUS_OK)
        return st;
    const struct linear_tensors *products[] = {&found.q, &found.k, &found.v, &found.o};
    append(out, &found.norm);
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
        append_linear(out, products[i]);
    append(out, &found.q_norm.weight);
    append(out, &found.q_norm.bias);
    append(out, &found.k_norm.weight);
    append(out, &found.k_norm.bias);
    return STATUS_OK;
}

static enum status list_feed_forward(struct checkpoint *checkpoint, int layer,
                                     struct unit_tensors *out, struct error *err)
{
    struct feed_forward_tensors found;
    enum status st = checkpoint_find_feed_forward(checkpoint, layer, &found, err);
    if (st != STATUS_OK)
        return st;
    const struct linear_tensors *products[] = {&found.gate, &found.up, &found.down};
    append(out, &found.norm);
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++)
        append_linear(out, products[i]);
    return STATUS_OK;
}

static enum status list_head(struct checkpoint *checkpoint, struct unit_tensors *out,
                             struct error *err)
{
    struct head_tensors found;
    enum status st = checkpoint_find_head(checkpoint, &found, err);
    if (st != STATUS_OK)
        return st;
    append(out, &found.norm);
    append(out, &found.lm_head);
    return STATUS_OK;
}

static enum status list_unit(struct checkpoint *checkpoint, int unit, struct unit_tensors *out,
                             struct error *err)
{
    int n_layers = checkpoint_config(checkpoint)->n_layers, last = units_count(n_layers) - 1;
    out->n = 0;
    if (unit < 0 || unit > last)
        return error_set(err, STATUS_INVALID, "unit %d does not exist, expected 0 to %d", unit,
                         last);
    switch (units_kind(unit, n_layers)) {
    case UNIT_EMBEDDING:
        out->n = 1;
        return checkpoint_find_embedding(checkpoint, &out->views[0], err);
    case UNIT_ATTENTION:
        return list_attention(checkpoint, units_layer(unit), out, err);
    case UNIT_FEED_FORWARD:
        return list_feed_forward(checkpoint, units_layer(unit), out, err);
    case UNIT_HEAD:
        break;
    }
    return list_head(checkpoint, out, err);
}

enum status checkpoint_unit_bytes(struct checkpoint *checkpoint, int unit, size_t *bytes,
                                  struct error *err)
{
    struct unit_tensors tensors;
    *bytes = 0;
    enum status st = list_unit(checkpoint, unit, &tensors, err);
    for (int i = 0; st == STATUS_OK && i < tensors.n; i++)
        *bytes += tensors.views[i].bytes;
    return st;
}

enum status checkpoint_check_units(struct checkpoint *checkpoint, struct error *err)
{
    enum status st = STATUS_OK;
    size_t bytes;
    int n_units = units_count(checkpoint_config(checkpoint)->n_layers);
    for (int unit = 0; st == STATUS_OK && unit < n_units; unit++)
        st = checkpoint_unit_bytes(checkpoint, unit, &bytes, err);
    checkpoint_drop_pages(checkpoint);
    return st;
}

enum { DIGEST_WHOLE_BYTES = 64 << 10, DIGEST_PIECES = 16, DIGEST_PIECE_BYTES = 4 << 10 };

/* Numbers enter as decimal text, so that the digest is the same on every machine. */
static void hash_text(crypto_generichash_state *state, const char *text)
{
    crypto_generichash_update(state, (const unsigned char *)text, strlen(text) + 1);
}

static void hash_config(crypto_generichash_state *state, const struct model_config *c)
{
    char text[512];
    snprintf(text, sizeof(text),
             "hidden=%d inter=%d layers=%d heads=%d kv_heads=%d head_dim=%d vocab=%d positions=%d "
             "eps=%.9g "
             "theta=%.9g factor=%.9g swin=%d mp=%d attention_bias=%d mlp_bias=%d",
             c->hidden, c->inter, c->n_layers, c->n_heads, c->n_kv_heads, c->head_dim, c->vocab,
             c->max_positions, (double)c->rms_eps, (double)c->rope_theta, (double)c->rope_factor,
             c->swin_norm, c->model_parallel_size, c->attention_bias, c->mlp_bias);
    hash_text(state, text);
}

static void hash_tensor(crypto_generichash_state *state, const struct tensor_view *view)
{
    char shape[TENSOR_SHAPE_TEXT_BYTES];
    hash_text(state, view->name);
    hash_text(state, dtype_name(view->dtype));
    hash_text(state, tensor_format_shape(shape, view->rank, view->shape));
    const unsigned char *bytes = view->data;
    if (view->bytes <= DIGEST_WHOLE_BYTES) {
        crypto_generichash_update(state, bytes, view->bytes);
        return;
    }
    for (size_t i = 0; i < DIGEST_PIECES; i++) {
        size_t at = (view->bytes - DIGEST_PIECE_BYTES) / (DIGEST_PIECES - 1) * i;
        crypto_generichash_update(state, bytes + at, DIGEST_PIECE_BYTES);
    }
}

enum status checkpoint_digest(struct checkpoint *checkpoint, int first_unit, int last_unit,
                              unsigned char digest[CHECKPOINT_DIGEST_BYTES], struct error *err)
{
    crypto_generichash_state state;
    if (sodium_init() < 0 || crypto_generichash_init(&state, NULL, 0, CHECKPOINT_DIGEST_BYTES) != 0)
        return error_set(err, STATUS_INTERNAL, "libsodium does not start");
    hash_config(&state, checkpoint_config(checkpoint));
    for (int unit = first_unit; unit <= last_unit; unit++) {
        struct unit_tensors tensors;
        enum status st = list_unit(checkpoint, unit, &tensors, err);
        if (st != STATUS_OK)
            return st;
        for (int i = 0; i < tensors.n; i++)
            hash_tensor(&state, &tensors.views[i]);
    }
    crypto_generichash_final(&state, digest, CHECKPOINT_DIGEST_BYTES);
    return STATUS_OK;
}
