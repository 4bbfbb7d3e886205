/*
 * stage_forward.c - the rows of a plan through the embedding and through one layer.
 *
 * Plain: x += o(attention(norm(x))), x += down(silu(gate) * up) of norm(x). With swin_norm the norm
 * stands behind each block, before the addition: x += norm(attention), x += norm(mlp). REFERENCE:
 * Lumina-mGPT, Chameleon.
 */
#include "worker/stage_state.h"

#include "kernels/add.h"
#include "kernels/attention.h"
#include "kernels/embedding.h"
#include "kernels/rmsnorm.h"
#include "kernels/silu_mul.h"

static const float QK_NORM_EPS =
    1e-5f; /* of the LayerNorm over each head, whatever rms_norm_eps is */

enum status stage_load_input(struct stage *stage, const struct stage_input *input, int n_tokens,
                             struct error *err)
{
    const struct stage_weights *weights = stage->weights;
    size_t n_bytes =
        (size_t)n_tokens * (size_t)stage->config.hidden * dtype_bytes(weights->compute);
    if (!weights->embedding) {
        if (input->on_device)
            stream_copy(stage->stream, stage->buffers.x, input->rows, n_bytes);
        else
            stream_upload(stage->stream, stage->buffers.x, input->rows, n_bytes);
        return STATUS_OK;
    }
    enum status st = embedding(stage->buffers.x, stage->ids, weights->embedding, weights->compute,
                               n_tokens, stage->config.hidden, stage->config.vocab, stage->stream);
    return st == STATUS_OK ? st : error_set(err, st, "the embedding failed (%s)", status_name(st));
}

/* What a layer works on. */
struct pass {
    struct stage *stage;
    const struct layer_weights *layer;
    int index; /* of the layer in this stage */
    int n_rows, n_segments;
    bool has_delta; /* the layer before has left its last addition to this one */
};

static enum status norm(const struct pass *pass, void *y, const void *x, const float *weight)
{
    const struct stage *stage = pass->stage;
    return rmsnorm(y, x, weight, stage->options.compute, pass->n_rows, stage->config.hidden,
                   stage->config.rms_eps, stage->stream);
}

/* delta = o(attention(input)) */
static enum status attend(const struct pass *pass, const void *input)
{
    struct stage *stage = pass->stage;
    const struct attention_shape *shape = &stage->shape;
    const struct layer_weights *layer = pass->layer;
    struct qk_norm qk_norm = {layer->q_norm, layer->q_norm_bias, layer->k_norm, layer->k_norm_bias,
                              QK_NORM_EPS};
    struct kv_layer kv = kv_cache_layer(stage->kv, pass->index);
    size_t qkv_row = (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * (size_t)shape->head_dim;
    void *qkv = stage->buffers.wide;
    void *attended = (char *)qkv + stage->rows_room * qkv_row * dtype_bytes(shape->dtype);
    enum status st = linear(qkv, input, layer->qkv, pass->n_rows, stage->stream);
    if (st == STATUS_OK)
        st = qk_norm_rope_store(qkv, shape, &qk_norm, stage->rope, stage->segments,
                                pass->n_segments, &kv, stage->stream);
    if (st == STATUS_OK)
        st = attention(attended, qkv, shape, stage->segments, pass->n_segments, &kv, stage->stream);
    if (st == STATUS_OK)
        st = linear(stage->buffers.delta, attended, layer->o, pass->n_rows, stage->stream);
    return st;
}

/* delta = down(silu(gate(input)) * up(input)) */
static enum status feed_forward(const struct pass *pass, const void *input)
{
    struct stage *stage = pass->stage;
    enum dtype compute = stage->options.compute;
    int inter = stage->config.inter;
    void *gate_up = stage->buffers.wide;
    void *product = (char *)gate_up + stage->rows_room * 2 * (size_t)inter * dtype_bytes(compute);
    enum status st = linear(gate_up, input, pass->layer->gate_up, pass->n_rows, stage->stream);
    if (st == STATUS_OK)
        st = silu_mul(product, gate_up, compute, pass->n_rows, inter, stage->stream);
    if (st == STATUS_OK)
        st = linear(stage->buffers.delta, product, pass->layer->down, pass->n_rows, stage->stream);
    return st;
}

static enum status add_delta(const struct pass *pass)
{
    struct stage *stage = pass->stage;
    return add(stage->buffers.x, stage->buffers.delta, stage->options.compute, pass->n_rows,
               stage->config.hidden, stage->stream);
}

/* x += delta, and y = norm(x): one launch. */
static enum status add_and_norm(const struct pass *pass, void *y, const float *weight)
{
    struct stage *stage = pass->stage;
    return add_rmsnorm(y, stage->buffers.x, stage->buffers.delta, weight, stage->options.compute,
                       pass->n_rows, stage->config.hidden, stage->config.rms_eps, stage->stream);
}

/* Leaves its last addition to the next layer, whose norm does it too. */
static enum status run_plain(struct pass *pass)
{
    struct stage_buffers *buffers = &pass->stage->buffers;
    enum status st = pass->has_delta
                         ? add_and_norm(pass, buffers->normed, pass->layer->input_norm)
                         : norm(pass, buffers->normed, buffers->x, pass->layer->input_norm);
    if (st == STATUS_OK)
        st = attend(pass, buffers->normed);
    if (st == STATUS_OK)
        st = add_and_norm(pass, buffers->normed, pass->layer->post_norm);
    if (st == STATUS_OK)
        st = feed_forward(pass, buffers->normed);
    pass->has_delta = true;
    return st;
}

static enum status run_swin(struct pass *pass)
{
    struct stage_buffers *buffers = &pass->stage->buffers;
    enum status st = attend(pass, buffers->x);
    if (st == STATUS_OK)
        st = norm(pass, buffers->delta, buffers->delta, pass->layer->input_norm);
    if (st == STATUS_OK)
        st = add_delta(pass);
    if (st == STATUS_OK)
        st = feed_forward(pass, buffers->x);
    if (st == STATUS_OK)
        st = norm(pass, buffers->delta, buffers->delta, pass->layer->post_norm);
    if (st == STATUS_OK)
        st = add_delta(pass);
    return st;
}

/* Layers of a step, as stream_replay() runs them. */
struct layers {
    struct pass pass;
    int first, n;
    int failed_layer; /* of this stage */
};

static enum status run_layers(void *context)
{
    struct layers *layers = context;
    struct pass *pass = &layers->pass;
    enum status st = STATUS_OK;
    for (int i = layers->first; st == STATUS_OK && i < layers->first + layers->n; i++) {
        pass->index = layers->failed_layer = i;
        pass->layer = &pass->stage->weights->layers[i];
        st = pass->stage->config.swin_norm ? run_swin(pass) : run_plain(pass);
    }
    return st == STATUS_OK && pass->has_delta ? add_delta(pass) : st;
}

enum status stage_run_layers(struct stage *stage, int first, int n, int n_tokens, int n_segments,
                             struct error *err)
{
    if (n == 0)
        return STATUS_OK;
    /* A device works on the rows that products pad to: then steps of nearly the same size are
     * alike. */
    struct layers layers = {.pass = {.stage = stage,
                                     .n_rows = linear_padded_rows(n_tokens, stage->stream),
                                     .n_segments = n_segments},
                            .first = first,
                            .n = n};
    uint64_t likeness = 0;
    enum status st = attention_prepare_rows(&likeness, &stage->shape, stage->segments, n_segments,
                                            stage->stream);
    if (st == STATUS_OK)
        st = stream_replay(stage->stream, stage, n == stage->weights->n_layers ? likeness : 0,
                           run_layers, &layers);
    if (st != STATUS_OK)
        return error_set(err, st, "a kernel of layer %d failed (%s)",
                         stage->weights->first_layer + layers.failed_layer, status_name(st));
    return STATUS_OK;
}
