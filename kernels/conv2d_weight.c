/*
 * conv2d_weight.c - packs the weights of a convolution, see conv2d_weight.h.
 */
#include "kernels/conv2d_weight.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/tile_bf16x2.h"
#include "kernels/cpu/tile_f32.h"
#include "kernels/stream.h"

static enum status check_shape(const struct conv2d_shape *shape, struct error *err)
{
    if (shape->n_in < 1 || shape->n_in > CONV2D_CHANNELS_MAX || shape->n_out < 1 ||
        shape->n_out > CONV2D_CHANNELS_MAX)
        return error_set(err, STATUS_INVALID, "convolution of %d to %d channels, expected 1 to %d",
                         shape->n_in, shape->n_out, CONV2D_CHANNELS_MAX);
    if (shape->kernel != 3 && (shape->kernel != 1 || shape->kind != CONV2D_SAME))
        return error_set(err, STATUS_INVALID, "convolution with a kernel of %dx%d is not offered",
                         shape->kernel, shape->kernel);
    return STATUS_OK;
}

/* The rows [*first, *last) of the 3x3 kernel that meet row `tap` of the two under them, for an
 * output pixel in the upper (half = 0) or lower (half = 1) half of its pixel. Upper: one row above,
 * two here; lower: two here, one below. */
static void phase_rows(int half, int tap, int *first, int *last)
{
    *first = tap == 0 ? 0 : 1 + half;
    *last = tap == 0 ? 1 + half : 3;
}

static float packed_value(const struct conv2d_weight *packed, const float *kernel, int phase,
                          int row, int column)
{
    if (packed->shape.kind != CONV2D_UP)
        return kernel[row * packed->taps + column];
    int top, bottom, left, right;
    phase_rows(phase / 2, row, &top, &bottom);
    phase_rows(phase % 2, column, &left, &right);
    float sum = 0.0f;
    for (int i = top; i < bottom; i++)
        for (int j = left; j < right; j++)
            sum += kernel[i * 3 + j];
    return sum;
}

/* Columns beyond n_out stay zero, as the host memory came. */
static void pack_panel(const struct conv2d_weight *packed, float *memory, const float *weight,
                       int phase, int first)
{
    const struct conv2d_shape *shape = &packed->shape;
    int columns = packed->n_columns - first < TILE_F32_COLUMNS ? TILE_F32_LANE : TILE_F32_COLUMNS;
    int used = shape->n_out - first < columns ? shape->n_out - first : columns;
    size_t kernel_floats = (size_t)shape->kernel * shape->kernel;
    float *panel = memory + conv2d_weight_panel_at(packed, phase, first);
    for (int row = 0; row < packed->taps; row++)
        for (int column = 0; column < packed->taps; column++)
            for (int channel = 0; channel < shape->n_in; channel++, panel += columns)
                for (int i = 0; i < used; i++) {
                    size_t at = (size_t)(first + i) * shape->n_in + channel;
                    panel[i] =
                        packed_value(packed, weight + at * kernel_floats, phase, row, column);
                }
}

/* Each panel in its place. */
static enum status pack_bf16x2(const struct conv2d_weight *packed, float *memory, struct error *err)
{
    const int k = packed->taps * packed->taps * packed->shape.n_in;
    const size_t panel_floats = (size_t)k * TILE_F32_COLUMNS;
    float *panel = malloc(sizeof(*panel) * panel_floats);
    if (!panel)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu numbers", panel_floats);
    for (int phase = 0; phase < packed->n_phases; phase++)
        for (int first = 0; first < packed->n_columns; first += TILE_F32_COLUMNS) {
            int n = packed->n_columns - first < TILE_F32_COLUMNS ? TILE_F32_LANE : TILE_F32_COLUMNS;
            float *place = memory + conv2d_weight_panel_at(packed, phase, first);
            memcpy(panel, place, sizeof(*panel) * (size_t)k * (size_t)n);
            tile_bf16x2_pack(place, panel, n, k);
        }
    free(panel);
    return STATUS_OK;
}

/* Packs in host memory, then sends it to the stream's. */
static enum status fill(struct conv2d_weight *packed, const float *weight, const float *bias,
                        struct error *err)
{
    float *memory = calloc(1, packed->bytes);
    if (!memory)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", packed->bytes);
    memcpy(memory, bias, sizeof(float) * packed->shape.n_out);
    for (int phase = 0; phase < packed->n_phases; phase++)
        for (int first = 0; first < packed->n_columns; first += TILE_F32_COLUMNS)
            pack_panel(packed, memory, weight, phase, first);
    enum status st = packed->is_bf16x2 ? pack_bf16x2(packed, memory, err) : STATUS_OK;
    if (st == STATUS_OK)
        st = stream_alloc(packed->stream, (void **)&packed->memory, packed->bytes, err);
    if (st == STATUS_OK)
        stream_upload(packed->stream, packed->memory, memory, packed->bytes);
    free(memory);
    return st;
}

enum status conv2d_weight_create(struct conv2d_weight **out, const struct conv2d_shape *shape,
                                 const float *weight, const float *bias, struct stream *stream,
                                 struct error *err)
{
    *out = NULL;
    enum status st = check_shape(shape, err);
    if (st != STATUS_OK)
        return st;
    struct conv2d_weight *packed = calloc(1, sizeof(*packed));
    if (!packed)
        return error_set(err, STATUS_NOMEM, "cannot allocate the header of a convolution");
    packed->shape = *shape;
    packed->stream = stream;
    packed->taps = shape->kind == CONV2D_UP ? 2 : shape->kernel;
    packed->n_phases = shape->kind == CONV2D_UP ? 4 : 1;
    packed->is_bf16x2 = !stream_device(stream) && tile_bf16x2_available(stream_code_path(stream)) &&
                        shape->n_in % TILE_BF16X2_STEP == 0;
    packed->n_columns = (shape->n_out + TILE_F32_LANE - 1) / TILE_F32_LANE * TILE_F32_LANE;
    packed->phase_floats = (size_t)packed->taps * packed->taps * shape->n_in * packed->n_columns;
    packed->bytes = sizeof(float) * (packed->n_columns + packed->n_phases * packed->phase_floats);
    st = fill(packed, weight, bias, err);
    if (st != STATUS_OK) {
        conv2d_weight_destroy(packed);
        return error_wrap(err, st, "cannot pack a convolution of %d to %d channels", shape->n_in,
                          shape->n_out);
    }
    *out = packed;
    return STATUS_OK;
}

void conv2d_weight_destroy(struct conv2d_weight *weight)
{
    if (!weight)
        return;
    stream_free(weight->stream, weight->memory, weight->bytes);
    free(weight);
}

const struct conv2d_shape *conv2d_weight_shape(const struct conv2d_weight *weight)
{
    return &weight->shape;
}

size_t conv2d_weight_bytes(const struct conv2d_weight *weight)
{
    return weight->bytes;
}
