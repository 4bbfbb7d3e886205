/*
 * stage_weights.c - unit by unit: find the tensors, check that they are finite, copy or pack them,
 * drop the file's pages.
 */
#include "worker/stage_weights.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { CONVERT_BYTES = 1 << 20 /* embedding rows are converted in pieces of about this size */ };

/* Device memory of `n` f32, the tensor repeated until it is full: [n_rows, head_dim] serves heads
 * in groups. */
static enum status load_vector(struct stage_weights *weights, float **out,
                               const struct tensor_view *tensor, struct error *err)
{
    enum status st = tensor_check_finite(tensor, err);
    size_t n = tensor_elements(tensor), bytes = n * sizeof(float);
    float *host = malloc(bytes);
    if (!host)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes for '%s'", bytes,
                         tensor->name);
    if (st == STATUS_OK)
        st = stream_alloc(weights->stream, (void **)out, bytes, err);
    if (st == STATUS_OK) {
        dtype_convert(host, DTYPE_F32, tensor->data, tensor->dtype, n);
        stream_upload(weights->stream, *out, host, bytes);
        weights->bytes += bytes;
        weights->file_bytes += tensor->bytes;
    }
    free(host);
    return st;
}

/* [n_rows, head_dim] of the file to [n_heads, head_dim]: row h / (n_heads / n_rows) serves head h.
 */
static enum status load_head_vector(struct stage_weights *weights, float **out,
                                    const struct tensor_view *tensor, int n_rows, int n_heads,
                                    struct error *err)
{
    enum status st = tensor_check_finite(tensor, err);
    if (st != STATUS_OK)
        return st;
    CHECK(n_rows >= 1);
    CHECK(n_heads % n_rows == 0);
    size_t head_dim = tensor_elements(tensor) / (size_t)n_rows,
           bytes = (size_t)n_heads * head_dim * sizeof(float);
    float *host = malloc(bytes);
    if (!host)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes for '%s'", bytes,
                         tensor->name);
    for (int head = 0; head < n_heads; head++) {
        size_t row = (size_t)(head / (n_heads / n_rows));
        const char *src = (const char *)tensor->data + row * head_dim * dtype_bytes(tensor->dtype);
        dtype_convert(host + (size_t)head * head_dim, DTYPE_F32, src, tensor->dtype, head_dim);
    }
    st = stream_alloc(weights->stream, (void **)out, bytes, err);
    if (st == STATUS_OK) {
        stream_upload(weights->stream, *out, host, bytes);
        weights->bytes += bytes;
        weights->file_bytes += tensor->bytes;
    }
    free(host);
    return st;
}

/* One matrix of n_parts below each other, which read the same input. */
static enum status load_linear(struct stage_weights *weights, struct linear_weight **out,
                               const struct linear_tensors *parts[], int n_parts, struct error *err)
{
    struct linear_weight_options options = {.n_in = (int)parts[0]->weight.shape[1],
                                            .dtype = weights->compute,
                                            .has_bias = parts[0]->bias.data != NULL};
    for (int i = 0; i < n_parts; i++)
        options.n_out += (int)parts[i]->weight.shape[0];
    enum status st = linear_weight_create(out, &options, weights->stream, err);
    if (st != STATUS_OK)
        return error_wrap(err, st, "'%s'", parts[0]->weight.name);
    weights->bytes += linear_weight_bytes(&options);
    for (int i = 0, first = 0; i < n_parts; i++) {
        const struct tensor_view *weight = &parts[i]->weight, *bias = &parts[i]->bias;
        st = tensor_check_finite(weight, err);
        if (st == STATUS_OK && bias->data)
            st = tensor_check_finite(bias, err);
        if (st != STATUS_OK)
            return st;
        linear_weight_set(*out, first, (int)weight->shape[0], weight->data, weight->dtype);
        weights->file_bytes += weight->bytes;
        if (bias->data) {
            linear_weight_set_bias(*out, first, (int)weight->shape[0], bias->data, bias->dtype);
            weights->file_bytes += bias->bytes;
        }
        first += (int)weight->shape[0];
    }
    return STATUS_OK;
}

static enum status load_embedding(struct stage_weights *weights, struct checkpoint *checkpoint,
                                  struct error *err)
{
    struct tensor_view table;
    enum status st = checkpoint_find_embedding(checkpoint, &table, err);
    if (st == STATUS_OK)
        st = tensor_check_finite(&table, err);
    size_t n = tensor_elements(&table), to_bytes = dtype_bytes(weights->compute);
    if (st == STATUS_OK)
        st = stream_alloc(weights->stream, &weights->embedding, n * to_bytes, err);
    if (st != STATUS_OK)
        return st;
    weights->bytes += n * to_bytes;
    weights->file_bytes += table.bytes;
    char *piece = malloc(CONVERT_BYTES);
    if (!piece)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d bytes", CONVERT_BYTES);
    size_t step = CONVERT_BYTES / to_bytes;
    for (size_t i = 0; i < n; i += step) {
        size_t count = n - i < step ? n - i : step;
        dtype_convert(piece, weights->compute,
                      (const char *)table.data + i * dtype_bytes(table.dtype), table.dtype, count);
        stream_upload(weights->stream, (char *)weights->embedding + i * to_bytes, piece,
                      count * to_bytes);
    }
    free(piece);
    return STATUS_OK;
}

static enum status load_head_norms(struct stage_weights *weights, struct attention_weights *out,
                                   const struct attention_tensors *tensors, struct error *err)
{
    const struct model_config *config = &weights->config;
    const struct {
        float **out;
        const struct tensor_view *tensor;
        int n_rows, n_heads;
    } norms[] = {
        {&out->q_norm, &tensors->q_norm.weight, tensors->q_norm.n_rows, config->n_heads},
        {&out->q_norm_bias, &tensors->q_norm.bias, tensors->q_norm.n_rows, config->n_heads},
        {&out->k_norm, &tensors->k_norm.weight, tensors->k_norm.n_rows, config->n_kv_heads},
        {&out->k_norm_bias, &tensors->k_norm.bias, tensors->k_norm.n_rows, config->n_kv_heads},
    };
    enum status st = STATUS_OK;
    for (size_t i = 0; st == STATUS_OK && i < sizeof(norms) / sizeof(norms[0]); i++)
        st = load_head_vector(weights, norms[i].out, norms[i].tensor, norms[i].n_rows,
                              norms[i].n_heads, err);
    return st;
}

static enum status load_attention(struct stage_weights *weights, struct checkpoint *checkpoint,
                                  int layer, struct error *err)
{
    struct attention_tensors tensors;
    struct attention_weights *out = &weights->attention[layer - weights->attention_layers.first];
    enum status st = checkpoint_find_attention(checkpoint, layer, &tensors, err);
    if (st == STATUS_OK)
        st = load_vector(weights, &out->norm, &tensors.norm, err);
    if (st == STATUS_OK)
        st = load_head_norms(weights, out, &tensors, err);
    if (st == STATUS_OK)
        st = load_linear(weights, &out->qkv,
                         (const struct linear_tensors *[]){&tensors.q, &tensors.k, &tensors.v}, 3,
                         err);
    if (st == STATUS_OK)
        st = load_linear(weights, &out->o, (const struct linear_tensors *[]){&tensors.o}, 1, err);
    return st;
}

static enum status load_feed_forward(struct stage_weights *weights, struct checkpoint *checkpoint,
                                     int layer, struct error *err)
{
    struct feed_forward_tensors tensors;
    struct feed_forward_weights *out =
        &weights->feed_forward[layer - weights->feed_forward_layers.first];
    enum status st = checkpoint_find_feed_forward(checkpoint, layer, &tensors, err);
    if (st == STATUS_OK)
        st = load_vector(weights, &out->norm, &tensors.norm, err);
    if (st == STATUS_OK)
        st = load_linear(weights, &out->gate_up,
                         (const struct linear_tensors *[]){&tensors.gate, &tensors.up}, 2, err);
    if (st == STATUS_OK)
        st = load_linear(weights, &out->down, (const struct linear_tensors *[]){&tensors.down}, 1,
                         err);
    return st;
}

static enum status load_head(struct stage_weights *weights, struct checkpoint *checkpoint,
                             struct error *err)
{
    struct head_tensors tensors;
    enum status st = checkpoint_find_head(checkpoint, &tensors, err);
    if (st == STATUS_OK)
        st = load_vector(weights, &weights->final_norm, &tensors.norm, err);
    struct linear_tensors head = {.weight = tensors.lm_head};
    if (st == STATUS_OK)
        st = load_linear(weights, &weights->head, (const struct linear_tensors *[]){&head}, 1, err);
    return st;
}

static enum status load_unit(struct stage_weights *weights, struct checkpoint *checkpoint, int unit,
                             struct error *err)
{
    switch (units_kind(unit, weights->config.n_layers)) {
    case UNIT_EMBEDDING:
        return load_embedding(weights, checkpoint, err);
    case UNIT_ATTENTION:
        return load_attention(weights, checkpoint, units_layer(unit), err);
    case UNIT_FEED_FORWARD:
        return load_feed_forward(weights, checkpoint, units_layer(unit), err);
    case UNIT_HEAD:
        break;
    }
    return load_head(weights, checkpoint, err);
}

static enum status allocate_parts(struct stage_weights *weights, struct error *err)
{
    int n_layers = weights->config.n_layers, first = weights->first_unit, last = weights->last_unit;
    weights->attention_layers = units_layers(UNIT_ATTENTION, first, last, n_layers);
    weights->feed_forward_layers = units_layers(UNIT_FEED_FORWARD, first, last, n_layers);
    size_t n_attention = (size_t)weights->attention_layers.n,
           n_feed_forward = (size_t)weights->feed_forward_layers.n;
    weights->first_part = first > 0 ? first : 1;
    weights->n_parts = (int)(n_attention + n_feed_forward);
    weights->attention = calloc(n_attention + 1, sizeof(*weights->attention));
    weights->feed_forward = calloc(n_feed_forward + 1, sizeof(*weights->feed_forward));
    return weights->attention && weights->feed_forward
               ? STATUS_OK
               : error_set(err, STATUS_NOMEM, "cannot allocate the list of layers");
}

enum status stage_weights_create(struct stage_weights **out, struct checkpoint *checkpoint,
                                 int first_unit, int last_unit, enum dtype compute,
                                 struct stream *stream, struct error *err)
{
    *out = NULL;
    struct stage_weights *weights = calloc(1, sizeof(*weights));
    if (!weights)
        return error_set(err, STATUS_NOMEM, "cannot allocate the list of weights");
    weights->config = *checkpoint_config(checkpoint);
    weights->compute = compute;
    weights->stream = stream;
    weights->first_unit = first_unit;
    weights->last_unit = last_unit;
    CHECK(first_unit >= 0);
    CHECK(first_unit <= last_unit);
    CHECK(last_unit < units_count(weights->config.n_layers));
    enum status st = allocate_parts(weights, err);
    for (int unit = first_unit; st == STATUS_OK && unit <= last_unit; unit++) {
        st = load_unit(weights, checkpoint, unit, err);
        checkpoint_drop_pages(checkpoint);
    }
    if (st != STATUS_OK) {
        stage_weights_destroy(weights);
        return st;
    }
    *out = weights;
    return STATUS_OK;
}

static void destroy_attention(struct stage_weights *weights, struct attention_weights *part)
{
    const struct model_config *config = &weights->config;
    size_t q_bytes = (size_t)config->n_heads * (size_t)config->head_dim * sizeof(float);
    size_t k_bytes = (size_t)config->n_kv_heads * (size_t)config->head_dim * sizeof(float);
    stream_free(weights->stream, part->norm, (size_t)config->hidden * sizeof(float));
    stream_free(weights->stream, part->q_norm, q_bytes);
    stream_free(weights->stream, part->q_norm_bias, q_bytes);
    stream_free(weights->stream, part->k_norm, k_bytes);
    stream_free(weights->stream, part->k_norm_bias, k_bytes);
    linear_weight_destroy(part->qkv);
    linear_weight_destroy(part->o);
}

static void destroy_feed_forward(struct stage_weights *weights, struct feed_forward_weights *part)
{
    stream_free(weights->stream, part->norm, (size_t)weights->config.hidden * sizeof(float));
    linear_weight_destroy(part->gate_up);
    linear_weight_destroy(part->down);
}

void stage_weights_destroy(struct stage_weights *weights)
{
    if (!weights)
        return;
    size_t table = (size_t)weights->config.vocab * (size_t)weights->config.hidden *
                   dtype_bytes(weights->compute);
    stream_free(weights->stream, weights->embedding, table);
    for (int i = 0; weights->attention && i < weights->attention_layers.n; i++)
        destroy_attention(weights, &weights->attention[i]);
    for (int i = 0; weights->feed_forward && i < weights->feed_forward_layers.n; i++)
        destroy_feed_forward(weights, &weights->feed_forward[i]);
    stream_free(weights->stream, weights->final_norm,
                (size_t)weights->config.hidden * sizeof(float));
    linear_weight_destroy(weights->head);
    free(weights->attention);
    free(weights->feed_forward);
    free(weights);
}
