/*
 * stage_room.c - counts matrices, blocks and rows.
 */
#include "worker/stage_room.h"

#include "base/machine_memory.h"
#include "kernels/attention.h"
#include "kernels/linear.h"
#include "model/units.h"
#include "worker/kv_cache.h"
#include "worker/stage_head.h"

enum { MIB_SHIFT = 20 };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static int n_parts(const struct model_config *config, const struct stage_options *options,
                   enum unit_kind kind)
{
    return units_layers(kind, options->first_unit, options->last_unit, config->n_layers).n;
}

/* Of q, k, v and the attention's output. */
static size_t all_heads(const struct model_config *config)
{
    return 2 * ((size_t)config->n_heads + (size_t)config->n_kv_heads) * (size_t)config->head_dim;
}

size_t stage_room_wide(const struct model_config *config, const struct stage_options *options)
{
    bool attends = n_parts(config, options, UNIT_ATTENTION) > 0,
         feeds_forward = n_parts(config, options, UNIT_FEED_FORWARD) > 0;
    return larger(attends ? all_heads(config) : 0, feeds_forward ? 3 * (size_t)config->inter : 0);
}

static bool has_head(const struct model_config *config, const struct stage_options *options)
{
    return options->last_unit == units_count(config->n_layers) - 1;
}

static size_t count_weights(const struct model_config *config, const struct stage_options *options)
{
    size_t hidden = (size_t)config->hidden, table = (size_t)config->vocab * hidden;
    size_t n =
        (size_t)n_parts(config, options, UNIT_ATTENTION) * hidden * all_heads(config) +
        (size_t)n_parts(config, options, UNIT_FEED_FORWARD) * hidden * 3 * (size_t)config->inter;
    if (options->first_unit == 0)
        n += table;
    if (has_head(config, options))
        n += table;
    return n;
}

static size_t rope_bytes(const struct model_config *config)
{
    struct rope_options rope = {.n_positions = config->max_positions, .head_dim = config->head_dim};
    return rope_table_bytes(&rope);
}

void stage_room_need(struct stage_need *out, const struct model_config *config,
                     const struct stage_options *options, const struct stream *stream)
{
    size_t item_bytes = dtype_bytes(options->compute);
    size_t rows = (size_t)linear_padded_rows(options->rows_max, stream);
    size_t wide = stage_room_wide(config, options);
    size_t row = (wide > 0 ? 3 : 1) * (size_t)config->hidden + wide;
    struct kv_cache_options kv = {
        .n_layers = n_parts(config, options, UNIT_ATTENTION),
        .n_blocks = options->kv_blocks,
        .shape = {config->n_heads, config->n_kv_heads, config->head_dim, options->compute}};
    out->weight_bytes = count_weights(config, options) * item_bytes;
    out->kv_bytes = kv_cache_bytes(&kv);
    out->activation_bytes = rows * row * item_bytes + options->link_bytes;
    if (kv.n_layers > 0)
        out->activation_bytes += rope_bytes(config);
    if (has_head(config, options))
        out->activation_bytes += stage_head_work_bytes(config, options->compute);
    out->recording_bytes = wide > 0 ? stream_recording_bytes(stream) : 0;
}

void stage_room_free(const struct stream *stream, size_t *free_bytes, size_t *total_bytes)
{
    if (!stream_room(stream, free_bytes, total_bytes))
        machine_memory(free_bytes, total_bytes);
}

static size_t sum(size_t a, size_t b)
{
    size_t bytes;
    return __builtin_add_overflow(a, b, &bytes) ? SIZE_MAX : bytes;
}

enum status stage_room_check(const struct model_config *config, const struct stage_options *options,
                             const struct stream *stream, struct error *err)
{
    struct stage_need need;
    size_t free_bytes, total_bytes;
    stage_room_free(stream, &free_bytes, &total_bytes);
    if (total_bytes == 0)
        return STATUS_OK; /* not known: then the system decides */
    stage_room_need(&need, config, options, stream);
    size_t all = sum(sum(need.weight_bytes, need.kv_bytes),
                     sum(need.activation_bytes, need.recording_bytes));
    if (all <= free_bytes)
        return STATUS_OK;
    return error_set(
        err, STATUS_NOMEM,
        "this stage needs %zu MiB of the %s's memory (weights %zu, KV cache %zu, activations and "
        "links %zu, recorded steps %zu), free are %zu of %zu: use more --stages, or fewer "
        "--kv-blocks than %d",
        all >> MIB_SHIFT, stream_device(stream) ? "device" : "machine",
        need.weight_bytes >> MIB_SHIFT, need.kv_bytes >> MIB_SHIFT,
        need.activation_bytes >> MIB_SHIFT, need.recording_bytes >> MIB_SHIFT,
        free_bytes >> MIB_SHIFT, total_bytes >> MIB_SHIFT, options->kv_blocks);
}
