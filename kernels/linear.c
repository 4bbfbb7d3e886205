/*
 * linear.c - the packed matrix and the choice of the version.
 *
 * f32: groups of 16 outputs, [n_out / 16][n_in][16], the last group padded with zeros.
 * bf16: strips of a few groups, each [n_in / 2 pairs][groups][16][2] (tile.h; how many groups, and
 * the order within a group and pair, as the code path likes it), so that a thread reads its share
 * of the matrix as one stream; the last strip has only the groups it needs, and n_in is padded with
 * zeros to 32. A panel of 64 outputs is one strip or two.
 */
#include "kernels/linear.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/tile.h"
#include "kernels/device.h"
#include "kernels/linear_weight.h"

/* Group offsets count in elements from the matrix' start. */
size_t linear_weight_group_offset(const struct linear_weight *w, int group)
{
    if (w->options.dtype == DTYPE_F32)
        return (size_t)group * LINEAR_GROUP * (size_t)w->options.n_in;
    int in_strip = group % w->strip_groups;
    return (size_t)(group - in_strip) * LINEAR_GROUP * (size_t)w->n_in_padded +
           (size_t)in_strip * 2 * LINEAR_GROUP;
}

/* Groups that lie side by side with this one, itself counted. */
static int groups_of_strip(const struct linear_weight *w, int group)
{
    int left = w->n_groups - group / w->strip_groups * w->strip_groups;
    return left < w->strip_groups ? left : w->strip_groups;
}

int linear_weight_panel_groups(const struct linear_weight *w, int panel)
{
    int left = w->n_groups - panel * LINEAR_PANEL_GROUPS;
    return left < LINEAR_PANEL_GROUPS ? left : LINEAR_PANEL_GROUPS;
}

static void fill_sizes(struct linear_weight *w, const struct linear_weight_options *options)
{
    w->options = *options;
    w->n_groups = (options->n_out + LINEAR_GROUP - 1) / LINEAR_GROUP;
    int multiple = options->dtype == DTYPE_F32 ? 1 : LINEAR_INPUTS_MULTIPLE;
    w->n_in_padded = (options->n_in + multiple - 1) / multiple * multiple;
    w->matrix_bytes =
        (size_t)w->n_groups * LINEAR_GROUP * (size_t)w->n_in_padded * dtype_bytes(options->dtype);
    w->bias_bytes = options->has_bias ? (size_t)w->n_groups * LINEAR_GROUP * sizeof(float) : 0;
}

size_t linear_weight_bytes(const struct linear_weight_options *options)
{
    struct linear_weight w;
    fill_sizes(&w, options);
    return w.matrix_bytes + w.bias_bytes;
}

enum status linear_weight_create(struct linear_weight **out,
                                 const struct linear_weight_options *options, struct stream *stream,
                                 struct error *err)
{
    *out = NULL;
    const int size_max = 1 << 30;
    if (options->n_out < 1 || options->n_in < 1 || options->n_out > size_max ||
        options->n_in > size_max)
        return error_set(err, STATUS_INVALID, "a weight is [%d, %d], expected sizes of at least 1",
                         options->n_out, options->n_in);
    if (options->dtype != DTYPE_F32 && options->dtype != DTYPE_BF16)
        return error_set(err, STATUS_INVALID, "a weight is packed as %s, expected f32 or bf16",
                         dtype_name(options->dtype));
    struct linear_weight *w = calloc(1, sizeof(*w));
    if (!w)
        return error_set(err, STATUS_NOMEM, "cannot allocate a weight's header");
    fill_sizes(w, options);
    w->stream = stream;
    w->strip_groups = tile_weight_groups(stream_code_path(stream));
    enum status st = stream_alloc_packed(stream, &w->matrix, w->matrix_bytes, err);
    if (st == STATUS_OK && w->bias_bytes)
        st = stream_alloc(stream, (void **)&w->bias, w->bias_bytes, err);
    struct device *device = stream_device(stream);
    if (st == STATUS_OK && device)
        st = device->operations->linear_prepare(device, w, err);
    if (st != STATUS_OK) {
        linear_weight_destroy(w);
        return error_wrap(err, st, "cannot create a weight of [%d, %d]", options->n_out,
                          options->n_in);
    }
    *out = w;
    return STATUS_OK;
}

void linear_weight_destroy(struct linear_weight *w)
{
    if (!w)
        return;
    stream_free(w->stream, w->matrix, w->matrix_bytes);
    stream_free(w->stream, w->bias, w->bias_bytes);
    free(w);
}

struct pack {
    struct linear_weight *weight;
    int first_out, n_rows;
    const char *src;
    enum dtype src_dtype;
};

/* Inputs are converted in runs of this many, on the stack. */
enum { RUN = 256 };

static void pack_row_run(struct linear_weight *w, int out, int first_in, int n, const void *run)
{
    size_t base = linear_weight_group_offset(w, out / LINEAR_GROUP);
    int lane = out % LINEAR_GROUP;
    if (w->options.dtype == DTYPE_F32) {
        const float *values = run;
        float *matrix = (float *)w->matrix + base + lane;
        for (int i = 0; i < n; i++)
            matrix[(size_t)(first_in + i) * LINEAR_GROUP] = values[i];
        return;
    }
    const bf16 *values = run;
    size_t pair_stride = (size_t)groups_of_strip(w, out / LINEAR_GROUP) * 2 * LINEAR_GROUP;
    const enum code_path path = stream_code_path(w->stream);
    const int places[] = {tile_weight_place(path, lane, 0), tile_weight_place(path, lane, 1)};
    bf16 *matrix = (bf16 *)w->matrix + base;
    for (int in = first_in; in < first_in + n; in++)
        matrix[(size_t)(in / 2) * pair_stride + (size_t)places[in % 2]] = values[in - first_in];
}

static void pack_task(void *context, int thread_index, int n_threads)
{
    const struct pack *pack = context;
    struct linear_weight *w = pack->weight;
    const size_t n_in = (size_t)w->options.n_in, src_bytes = dtype_bytes(pack->src_dtype);
    int first_group = pack->first_out / LINEAR_GROUP;
    int end = pack->first_out + pack->n_rows;
    int64_t n_groups = (end + LINEAR_GROUP - 1) / LINEAR_GROUP - first_group, share, share_end;
    stream_share(n_groups, thread_index, n_threads, &share, &share_end);
    float run[RUN];
    for (int64_t group = first_group + share; group < first_group + share_end; group++)
        for (size_t in = 0; in < n_in; in += RUN) {
            size_t n = n_in - in < RUN ? n_in - in : RUN;
            for (int lane = 0; lane < LINEAR_GROUP; lane++) {
                int out = (int)group * LINEAR_GROUP + lane;
                if (out < pack->first_out || out >= end)
                    continue;
                const char *src =
                    pack->src + ((size_t)(out - pack->first_out) * n_in + in) * src_bytes;
                dtype_convert(run, w->options.dtype, src, pack->src_dtype, n);
                pack_row_run(w, out, (int)in, (int)n, run);
            }
        }
}

/* A device takes the matrix as it is, piece by piece in the compute type. */
static void upload_numbers(struct linear_weight *w, void *to, enum dtype to_dtype, const void *src,
                           enum dtype src_dtype, size_t n)
{
    float piece[4 * RUN * LINEAR_GROUP];
    const size_t step = sizeof(piece) / sizeof(piece[0]);
    for (size_t i = 0; i < n; i += step) {
        size_t count = n - i < step ? n - i : step;
        dtype_convert(piece, to_dtype, (const char *)src + i * dtype_bytes(src_dtype), src_dtype,
                      count);
        stream_upload(w->stream, (char *)to + i * dtype_bytes(to_dtype), piece,
                      count * dtype_bytes(to_dtype));
    }
}

void linear_weight_set(struct linear_weight *w, int first_out, int n_rows, const void *src,
                       enum dtype src_dtype)
{
    CHECK(first_out >= 0);
    CHECK(n_rows >= 0);
    CHECK(first_out <= w->options.n_out - n_rows);
    if (stream_device(w->stream)) {
        size_t n_in = (size_t)w->options.n_in, at = (size_t)first_out * n_in;
        upload_numbers(w, (char *)w->matrix + at * dtype_bytes(w->options.dtype), w->options.dtype,
                       src, src_dtype, (size_t)n_rows * n_in);
        return;
    }
    struct pack pack = {w, first_out, n_rows, src, src_dtype};
    stream_parallel(w->stream, pack_task, &pack);
}

void linear_weight_set_bias(struct linear_weight *w, int first_out, int n, const void *src,
                            enum dtype src_dtype)
{
    CHECK(w->bias);
    CHECK(first_out >= 0);
    CHECK(n >= 0);
    CHECK(first_out <= w->options.n_out - n);
    if (stream_device(w->stream))
        upload_numbers(w, w->bias + first_out, DTYPE_F32, src, src_dtype, (size_t)n);
    else
        dtype_convert(w->bias + first_out, DTYPE_F32, src, src_dtype, (size_t)n);
}

static enum status launch(const struct linear_launch *launch, struct stream *stream)
{
    if (launch->n_rows == 0)
        return STATUS_OK;
    struct device *device = stream_device(stream);
    if (device)
        return device->operations->linear(device, launch);
    return launch->weight->options.dtype == DTYPE_F32 ? linear_ref(launch, stream)
                                                      : linear_cpu(launch, stream);
}

int linear_padded_rows(int n_rows, const struct stream *stream)
{
    struct device *device = stream_device(stream);
    return device ? device->operations->linear_padded_rows(n_rows) : n_rows;
}

enum status linear_prepare_range(const struct linear_weight *weight, int n, struct error *err)
{
    struct device *device = stream_device(weight->stream);
    CHECK(n >= 1);
    CHECK(n <= weight->options.n_out);
    return device ? device->operations->linear_prepare_range(device, weight, n, err) : STATUS_OK;
}

enum status linear(void *y, const void *x, const struct linear_weight *weight, int n_rows,
                   struct stream *stream)
{
    CHECK(n_rows >= 0);
    struct linear_launch l = {y,     x, weight, weight->options.dtype, 0, weight->options.n_out,
                              n_rows};
    return launch(&l, stream);
}

enum status linear_range_f32(float *y, const void *x, const struct linear_weight *weight,
                             int first_out, int n, int n_rows, struct stream *stream)
{
    CHECK(n_rows >= 0);
    CHECK(first_out >= 0);
    CHECK(n >= 1);
    CHECK(first_out <= weight->options.n_out - n);
    struct linear_launch l = {y, x, weight, DTYPE_F32, first_out, n, n_rows};
    return launch(&l, stream);
}
