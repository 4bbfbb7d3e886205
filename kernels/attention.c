/*
 * attention.c - dispatch of attention, the checks of its arguments, storing of new rows, and the
 * table of angles.
 */
#include "kernels/attention_launch.h"

#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "kernels/device.h"
#include "kernels/kv_layout.h"
#include "kernels/rows.h"

size_t kv_block_bytes(const struct attention_shape *shape)
{
    return (size_t)shape->n_kv_heads * (kv_key_bytes(shape) + kv_value_bytes(shape));
}

enum { READ_PAST_END_BYTES = 64 };

size_t rope_table_bytes(const struct rope_options *options)
{
    return (size_t)options->n_positions * (size_t)options->head_dim * sizeof(float) +
           READ_PAST_END_BYTES;
}

/*
 * As the checkpoints' own code does it: the frequency, the position over the factor and their
 * product are f32, and the cosine is of that rounded angle.
 */
static void fill_table(float *values, const struct rope_options *o)
{
    int half = o->head_dim / 2;
    for (int i = 0; i < half; i++) {
        float frequency =
            1.0f / (float)pow(o->theta, (double)((float)(2 * i) / (float)o->head_dim));
        for (int p = 0; p < o->n_positions; p++) {
            float *row = values + (size_t)p * (size_t)o->head_dim;
            float angle = (float)p / (float)o->factor * frequency;
            row[i] = (float)cos((double)angle);
            row[half + i] = (float)sin((double)angle);
        }
    }
}

enum status rope_table_create(struct rope_table **out, const struct rope_options *options,
                              struct stream *stream, struct error *err)
{
    *out = NULL;
    if (options->n_positions < 1 || options->head_dim < 2 || options->head_dim % 2 ||
        options->head_dim > HEAD_DIM_MAX)
        return error_set(
            err, STATUS_INVALID,
            "a table of angles for %d positions and head_dim %d, expected at least 1 and an even "
            "number of 2..%d",
            options->n_positions, options->head_dim, HEAD_DIM_MAX);
    if (!(options->theta > 0) || !(options->factor > 0))
        return error_set(err, STATUS_INVALID,
                         "RoPE theta is %g and factor %g, expected positive numbers",
                         options->theta, options->factor);
    struct rope_table *table = calloc(1, sizeof(*table));
    if (!table)
        return error_set(err, STATUS_NOMEM, "cannot allocate a table of angles");
    table->options = *options;
    table->stream = stream;
    table->bytes = rope_table_bytes(options);
    float *values = calloc(1, table->bytes);
    enum status st = values
                         ? STATUS_OK
                         : error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", table->bytes);
    if (st == STATUS_OK)
        st = stream_alloc(stream, (void **)&table->values, table->bytes, err);
    if (st != STATUS_OK) {
        free(values);
        rope_table_destroy(table);
        return error_wrap(err, st, "cannot create a table of %d positions", options->n_positions);
    }
    fill_table(values, options);
    stream_upload(stream, table->values, values, table->bytes);
    free(values);
    *out = table;
    return STATUS_OK;
}

void rope_table_destroy(struct rope_table *table)
{
    if (!table)
        return;
    stream_free(table->stream, table->values, table->bytes);
    free(table);
}

static void check_shape(const struct attention_shape *shape)
{
    CHECK(shape->dtype == DTYPE_F32 || shape->dtype == DTYPE_BF16);
    CHECK(shape->n_kv_heads >= 1);
    CHECK(shape->n_heads >= 1);
    CHECK(shape->n_heads % shape->n_kv_heads == 0);
    CHECK(shape->head_dim >= 2);
    CHECK(shape->head_dim % 2 == 0);
    CHECK(shape->head_dim <= HEAD_DIM_MAX);
}

static enum status check_segments(const struct kv_segment *segments, int n_segments,
                                  const struct kv_layer *kv, const struct rope_table *rope)
{
    for (int i = 0; i < n_segments; i++) {
        const struct kv_segment *s = &segments[i];
        CHECK(s->n_rows >= 1);
        if (s->start < 0 || s->start > rope->options.n_positions - s->n_rows)
            return STATUS_INVALID;
        int n_blocks = (s->start + s->n_rows + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
        for (int b = 0; b < n_blocks; b++)
            if (s->blocks[b] < 0 || s->blocks[b] >= kv->n_blocks)
                return STATUS_INVALID;
    }
    return STATUS_OK;
}

struct store_task {
    const struct attention_launch *launch;
    enum code_path path;
};

/* Whether a segment's rows are left to attention_cpu(). */
static bool is_left(const struct attention_launch *l, const struct kv_segment *s)
{
    return l->shape->dtype == DTYPE_BF16 && attention_cpu_stores(l->shape, s);
}

/* A cut of a segment's rows, moved so that the even position and the odd one behind it stay
 * together. */
static int even_cut(const struct kv_segment *s, int64_t row)
{
    if (row <= 0 || row >= s->n_rows)
        return row <= 0 ? 0 : s->n_rows;
    return (int)row + ((s->start + (int)row) & 1);
}

/* Rows [first, last) counted through the segments in order, without those that are left. */
static void store_rows(void *context, int first, int last)
{
    const struct store_task *task = context;
    const struct attention_launch *l = task->launch;
    int64_t counted = 0;
    for (int i = 0; i < l->n_segments && counted < last; i++) {
        const struct kv_segment *s = &l->segments[i];
        if (is_left(l, s))
            continue;
        int to = even_cut(s, last - counted);
        for (int r = even_cut(s, first - counted); r < to; r++) {
            const struct store_row row = store_row_of(s, r);
            if (l->shape->dtype == DTYPE_F32)
                store_row_ref(l, &row);
            else
                store_row_cpu(l, &row, 0, l->shape->n_kv_heads, task->path);
        }
        counted += s->n_rows;
    }
}

enum status attention_prepare_rows(uint64_t *likeness, const struct attention_shape *shape,
                                   const struct kv_segment *segments, int n_segments,
                                   struct stream *stream)
{
    struct device *device = stream_device(stream);
    check_shape(shape);
    *likeness = 0;
    return device ? device->operations->prepare_rows(device, likeness, shape, segments, n_segments)
                  : STATUS_OK;
}

static void store(const struct attention_launch *launch, struct stream *stream)
{
    struct store_task task = {launch, stream_code_path(stream)};
    int n_rows = 0;
    for (int i = 0; i < launch->n_segments; i++)
        n_rows += is_left(launch, &launch->segments[i]) ? 0 : launch->segments[i].n_rows;
    rows_run(stream, store_rows, &task, n_rows,
             4 * qkv_row_numbers(launch->shape) * dtype_bytes(launch->shape->dtype));
}

enum status attention(void *y, void *qkv, const struct attention_shape *shape,
                      const struct qk_norm *norm, const struct rope_table *rope,
                      const struct kv_segment *segments, int n_segments, const struct kv_layer *kv,
                      struct stream *stream)
{
    check_shape(shape);
    CHECK(rope->options.head_dim == shape->head_dim);
    enum status st = check_segments(segments, n_segments, kv, rope);
    if (st != STATUS_OK)
        return st;
    const struct attention_launch launch = {y, qkv, shape, norm, rope, segments, n_segments, kv};
    struct device *device = stream_device(stream);
    if (device) {
        st = device->operations->store(device, &launch);
        return st == STATUS_OK ? device->operations->attention(device, &launch) : st;
    }
    store(&launch, stream);
    return shape->dtype == DTYPE_F32 ? attention_ref(&launch, stream)
                                     : attention_cpu(&launch, stream);
}
