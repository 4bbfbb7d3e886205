/*
 * stage.c - the life of a stage, and a plan's way through it: check, releases, forks, room for the
 * rows, layers, outputs.
 */
#include "worker/stage.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "kernels/attention.h"
#include "worker/stage_room.h"
#include "worker/stage_state.h"

static enum status allocate_buffers(struct stage *stage, struct error *err)
{
    const struct model_config *config = &stage->config;
    struct stage_buffers *buffers = &stage->buffers;
    size_t rows_max = (size_t)stage->options.rows_max,
           number_bytes = dtype_bytes(stage->options.compute);
    stage->rows_room = (size_t)linear_padded_rows(stage->options.rows_max, stage->stream);
    size_t wide = stage_room_wide(config, &stage->options);
    buffers->hidden_bytes = stage->rows_room * (size_t)config->hidden * number_bytes;
    buffers->wide_bytes = stage->rows_room * wide * number_bytes;
    void **places[] = {&buffers->x, &buffers->normed, &buffers->delta};
    enum status st = STATUS_OK;
    /* A stage without parts of layers needs the residual stream alone. */
    for (int i = 0; st == STATUS_OK && i < (wide > 0 ? 3 : 1); i++)
        st = stream_alloc(stage->stream, places[i], buffers->hidden_bytes, err);
    if (st == STATUS_OK && wide > 0)
        st = stream_alloc(stage->stream, &buffers->wide, buffers->wide_bytes, err);
    stage->ids = calloc(rows_max, sizeof(*stage->ids));
    stage->segments = calloc(rows_max, sizeof(*stage->segments));
    if (st == STATUS_OK && (!stage->ids || !stage->segments))
        st = error_set(err, STATUS_NOMEM, "cannot allocate lists of %zu rows", rows_max);
    return st == STATUS_OK ? st
                           : error_wrap(err, st, "memory for %zu rows of activations", rows_max);
}

static enum status create_cache(struct stage *stage, struct error *err)
{
    const struct model_config *config = &stage->config;
    stage->shape = (struct attention_shape){config->n_heads, config->n_kv_heads, config->head_dim,
                                            stage->options.compute};
    struct kv_cache_options options = {.n_layers = stage->weights->attention_layers.n,
                                       .n_blocks = stage->options.kv_blocks,
                                       .sequences_max = stage->options.sequences_max,
                                       .shape = stage->shape};
    enum status st = kv_cache_create(&stage->kv, &options, stage->stream, err);
    if (st != STATUS_OK || options.n_layers == 0)
        return st;
    struct rope_options rope = {.n_positions = config->max_positions,
                                .head_dim = config->head_dim,
                                .theta = (double)config->rope_theta,
                                .factor = (double)config->rope_factor};
    stage->rope_bytes = rope_table_bytes(&rope);
    return rope_table_create(&stage->rope, &rope, stage->stream, err);
}

static enum status create_head(struct stage *stage, const struct vocabulary *vocabulary,
                               struct error *err)
{
    if (!stage->weights->head)
        return STATUS_OK;
    CHECK(vocabulary);
    return stage_head_create(&stage->head, stage->weights, vocabulary, stage->options.outputs_max,
                             err);
}

enum status stage_create(struct stage **out, struct checkpoint *checkpoint,
                         const struct stage_options *options, struct stream *stream,
                         struct error *err)
{
    *out = NULL;
    const struct model_config *config = checkpoint_config(checkpoint);
    if (config->head_dim > HEAD_DIM_MAX || config->head_dim % 2 != 0)
        return error_set(err, STATUS_UNSUPPORTED,
                         "config.json: head_dim is %d, expected an even number up to %d",
                         config->head_dim, HEAD_DIM_MAX);
    enum status st = stage_room_check(config, options, stream, err);
    if (st != STATUS_OK)
        return st;
    struct stage *stage = calloc(1, sizeof(*stage));
    if (!stage)
        return error_set(err, STATUS_NOMEM, "cannot allocate a stage");
    stage->options = *options;
    stage->options.vocabulary = NULL;
    stage->config = *config;
    stage->stream = stream;
    st = stage_weights_create(&stage->weights, checkpoint, options->first_unit, options->last_unit,
                              options->compute, stream, err);
    if (st == STATUS_OK)
        st = create_cache(stage, err);
    if (st == STATUS_OK)
        st = allocate_buffers(stage, err);
    if (st == STATUS_OK)
        st = create_head(stage, options->vocabulary, err);
    if (st != STATUS_OK) {
        stage_destroy(stage);
        return st;
    }
    *out = stage;
    return STATUS_OK;
}

void stage_destroy(struct stage *stage)
{
    if (!stage)
        return;
    stream_forget(stage->stream, stage);
    stage_head_destroy(stage->head);
    stream_free(stage->stream, stage->buffers.x, stage->buffers.hidden_bytes);
    stream_free(stage->stream, stage->buffers.normed, stage->buffers.hidden_bytes);
    stream_free(stage->stream, stage->buffers.delta, stage->buffers.hidden_bytes);
    stream_free(stage->stream, stage->buffers.wide, stage->buffers.wide_bytes);
    rope_table_destroy(stage->rope);
    kv_cache_destroy(stage->kv);
    stage_weights_destroy(stage->weights);
    free(stage->ids);
    free(stage->segments);
    free(stage);
}

struct stage_memory stage_memory(const struct stage *stage)
{
    const struct kv_cache_options options = {.n_layers = stage->weights->attention_layers.n,
                                             .n_blocks = stage->options.kv_blocks,
                                             .sequences_max = stage->options.sequences_max,
                                             .shape = stage->shape};
    size_t n_hidden = stage->weights->n_parts > 0 ? 3 : 1;
    return (struct stage_memory){
        .weight_bytes = stage->weights->bytes,
        .file_bytes = stage->weights->file_bytes,
        .kv_bytes = kv_cache_bytes(&options),
        .activation_bytes = n_hidden * stage->buffers.hidden_bytes + stage->buffers.wide_bytes +
                            stage->rope_bytes + (stage->head ? stage_head_bytes(stage->head) : 0),
        .recording_bytes =
            stage->buffers.wide_bytes > 0 ? stream_recording_bytes(stage->stream) : 0};
}

struct plan_limits stage_limits(const struct stage *stage)
{
    return (struct plan_limits){.rows_max = (uint32_t)stage->options.rows_max,
                                .outputs_max = (uint32_t)stage->options.outputs_max,
                                .vocab = (uint32_t)stage->config.vocab,
                                .max_positions = (uint32_t)stage->config.max_positions};
}

int stage_hidden(const struct stage *stage)
{
    return stage->config.hidden;
}

enum dtype stage_compute(const struct stage *stage)
{
    return stage->options.compute;
}

int stage_kv_used(const struct stage *stage)
{
    return kv_cache_n_used(stage->kv);
}

void stage_reset(struct stage *stage)
{
    kv_cache_release_all(stage->kv);
}

static void release(struct stage *stage, const Mgpt__StepPlan *plan)
{
    for (size_t i = 0; i < plan->n_release; i++)
        kv_cache_release(stage->kv, plan->release[i]);
}

void stage_skip(struct stage *stage, const Mgpt__StepPlan *plan)
{
    release(stage, plan);
}

/* Gives every row its positions, all or none. */
static enum status prepare_rows(struct stage *stage, const Mgpt__StepPlan *plan, struct error *err)
{
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        enum status st =
            kv_cache_prepare(stage->kv, row->sequence, (int)row->start, (int)row->n_tokens, err);
        if (st == STATUS_OK)
            continue;
        for (size_t i = 0; i < r; i++)
            kv_cache_truncate(stage->kv, plan->rows[i]->sequence, (int)plan->rows[i]->start);
        return error_wrap(err, st, "row %zu", r);
    }
    return STATUS_OK;
}

static enum status apply_forks(struct stage *stage, const Mgpt__StepPlan *plan, struct error *err)
{
    for (size_t i = 0; i < plan->n_forks; i++) {
        const Mgpt__Fork *fork = plan->forks[i];
        enum status st =
            kv_cache_fork(stage->kv, fork->from, fork->to, (int)fork->n_positions, err);
        if (st == STATUS_OK)
            continue;
        for (size_t j = 0; j < i; j++)
            kv_cache_release(stage->kv, plan->forks[j]->to);
        return error_wrap(err, st, "fork %zu", i);
    }
    return STATUS_OK;
}

/* The rows below each other: their token ids, and where each lies in the cache. */
static void lay_out_rows(struct stage *stage, const Mgpt__StepPlan *plan)
{
    int first = 0;
    for (size_t r = 0; r < plan->n_rows; r++) {
        const Mgpt__Row *row = plan->rows[r];
        stage->segments[r] =
            (struct kv_segment){.blocks = kv_cache_blocks_view(stage->kv, row->sequence),
                                .start = (int)row->start,
                                .n_rows = (int)row->n_tokens,
                                .first_row = first};
        for (size_t i = 0; i < row->n_tokens; i++)
            stage->ids[first++] = (int32_t)row->tokens[i];
    }
}

static enum status run(struct stage *stage, const Mgpt__StepPlan *plan,
                       const struct stage_input *input, struct step_result *result,
                       struct error *err)
{
    int n_tokens = plan_n_tokens(plan);
    lay_out_rows(stage, plan);
    enum status st = stage_load_input(stage, input, n_tokens, err);
    if (st == STATUS_OK)
        st = stage_run_parts(stage, stage->weights->first_part, stage->weights->n_parts, n_tokens,
                             (int)plan->n_rows, err);
    if (st == STATUS_OK && stage->head)
        st = stage_head_run(stage->head, plan, stage->buffers.x, n_tokens, result, err);
    if (st == STATUS_OK)
        st = stream_wait(stage->stream, err);
    if (st == STATUS_OK)
        st = stage_blame(stage, plan, input, n_tokens, result, err);
    return st;
}

enum status stage_step(struct stage *stage, const Mgpt__StepPlan *plan,
                       const struct stage_input *input, struct step_result *result,
                       struct error *err)
{
    struct plan_limits limits = stage_limits(stage);
    /* Releases are done whatever comes of the rest: the controller counts their blocks as free. */
    release(stage, plan);
    enum status st = plan_check(plan, &limits, err);
    int64_t begin_ns = clock_monotonic_ns(); /* blocks are copied within a step's time */
    if (st == STATUS_OK)
        st = apply_forks(stage, plan, err);
    if (st == STATUS_OK)
        st = prepare_rows(stage, plan, err);
    if (st != STATUS_OK || plan->n_rows == 0)
        return st;
    size_t held_bytes = stream_held_bytes(stage->stream);
    st = run(stage, plan, input, result, err);
    CHECK(stream_held_bytes(stage->stream) == held_bytes); /* all was taken by stage_create() */
    step_result_message(result)->busy_ns = (uint64_t)(clock_monotonic_ns() - begin_ns);
    for (size_t r = 0; st != STATUS_OK && r < plan->n_rows; r++)
        kv_cache_truncate(stage->kv, plan->rows[r]->sequence, (int)plan->rows[r]->start);
    return st;
}

const void *stage_rows_view(const struct stage *stage)
{
    return stage->buffers.x;
}
