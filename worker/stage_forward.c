/*
 * stage_forward.c - the rows of a plan through the embedding and through the parts of layers.
 *
 * Plain: x += o(attention(norm(x))), x += down(silu(gate) * up) of norm(x). With swin_norm the norm
 * stands behind each part, before the addition: x += norm(attention), x += norm(mlp). REFERENCE:
 * Lumina-mGPT, Chameleon. A cut between two parts changes no bit: an addition and the norm after it
 * give the same bits in one launch (add_rmsnorm) as in two, one at the end of a stage and one at
 * the start of the next.
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

/* What the parts of layers work on. */
struct pass {
    struct stage *stage;
    int n_rows, n_segments;
    bool has_delta; /* the part before has left its addition to this one */
};

static enum status norm(const struct pass *pass, void *y, const void *x, const float *weight)
{
    const struct stage *stage = pass->stage;
    return rmsnorm(y, x, weight, stage->options.compute, pass->n_rows, stage->config.hidden,
                   stage->config.rms_eps, stage->stream);
}

/* delta = o(attention(input)); index: of the layer among those whose keys and values are here */
static enum status attend(const struct pass *pass, int index, const void *input)
{
    struct stage *stage = pass->stage;
    const struct attention_shape *shape = &stage->shape;
    const struct attention_weights *part = &stage->weights->attention[index];
    struct qk_norm qk_norm = {part->q_norm, part->q_norm_bias, part->k_norm, part->k_norm_bias,
                              QK_NORM_EPS};
    struct kv_layer kv = kv_cache_layer(stage->kv, index);
    size_t qkv_row = (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * (size_t)shape->head_dim;
    void *qkv = stage->buffers.wide;
    void *attended = (char *)qkv + stage->rows_room * qkv_row * dtype_bytes(shape->dtype);
    enum status st = linear(qkv, input, part->qkv, pass->n_rows, stage->stream);
    if (st == STATUS_OK)
        st = attention(attended, qkv, shape, &qk_norm, stage->rope, stage->segments,
                       pass->n_segments, &kv, stage->stream);
    if (st == STATUS_OK)
        st = linear(stage->buffers.delta, attended, part->o, pass->n_rows, stage->stream);
    return st;
}

/* delta = down(silu(gate(input)) * up(input)) */
static enum status feed_forward(const struct pass *pass, int index, const void *input)
{
    struct stage *stage = pass->stage;
    const struct feed_forward_weights *part = &stage->weights->feed_forward[index];
    enum dtype compute = stage->options.compute;
    int inter = stage->config.inter;
    void *gate_up = stage->buffers.wide;
    void *product = (char *)gate_up + stage->rows_room * 2 * (size_t)inter * dtype_bytes(compute);
    enum status st = linear(gate_up, input, part->gate_up, pass->n_rows, stage->stream);
    if (st == STATUS_OK)
        st = silu_mul(product, gate_up, compute, pass->n_rows, inter, stage->stream);
    if (st == STATUS_OK)
        st = linear(stage->buffers.delta, product, part->down, pass->n_rows, stage->stream);
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

/* Runs a unit of this stage that is part of a layer. A plain one leaves its addition to the next
 * part, whose norm does it too. */
static enum status run_part(struct pass *pass, int unit)
{
    const struct stage_weights *weights = pass->stage->weights;
    const struct stage_buffers *buffers = &pass->stage->buffers;
    bool swin = weights->config.swin_norm,
         attends = units_kind(unit, weights->config.n_layers) == UNIT_ATTENTION;
    int index = units_layer(unit) -
                (attends ? weights->attention_layers.first : weights->feed_forward_layers.first);
    const float *weight =
        attends ? weights->attention[index].norm : weights->feed_forward[index].norm;
    const void *input = swin ? buffers->x : buffers->normed;
    enum status st = STATUS_OK;
    if (!swin)
        st = pass->has_delta ? add_and_norm(pass, buffers->normed, weight)
                             : norm(pass, buffers->normed, buffers->x, weight);
    if (st == STATUS_OK)
        st = attends ? attend(pass, index, input) : feed_forward(pass, index, input);
    pass->has_delta = !swin;
    if (st == STATUS_OK && swin)
        st = norm(pass, buffers->delta, buffers->delta, weight);
    return st == STATUS_OK && swin ? add_delta(pass) : st;
}

/* Parts of a step, as stream_replay() runs them. */
struct parts {
    struct pass pass;
    int first, n; /* units */
    int failed;
};

static enum status run_parts(void *context)
{
    struct parts *parts = context;
    struct pass *pass = &parts->pass;
    enum status st = STATUS_OK;
    for (int unit = parts->first; st == STATUS_OK && unit < parts->first + parts->n; unit++) {
        parts->failed = unit;
        st = run_part(pass, unit);
    }
    return st == STATUS_OK && pass->has_delta ? add_delta(pass) : st;
}

enum status stage_run_parts(struct stage *stage, int first, int n, int n_tokens, int n_segments,
                            struct error *err)
{
    if (n == 0)
        return STATUS_OK;
    /* A device works on the rows that products pad to: then steps of nearly the same size are
     * alike. */
    struct parts parts = {.pass = {.stage = stage,
                                   .n_rows = linear_padded_rows(n_tokens, stage->stream),
                                   .n_segments = n_segments},
                          .first = first,
                          .n = n};
    uint64_t likeness = 0;
    enum status st = attention_prepare_rows(&likeness, &stage->shape, stage->segments, n_segments,
                                            stage->stream);
    if (st == STATUS_OK)
        st = stream_replay(stage->stream, stage, n == stage->weights->n_parts ? likeness : 0,
                           run_parts, &parts);
    if (st != STATUS_OK)
        return error_set(err, st, "a kernel of layer %d failed (%s)", units_layer(parts.failed),
                         status_name(st));
    return STATUS_OK;
}
