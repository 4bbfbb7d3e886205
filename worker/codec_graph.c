/*
 * codec_graph.c - walks the layers, see codec_graph.h. A failed kernel is remembered, the steps
 * behind it do nothing.
 */
#include "worker/codec_graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "kernels/group_norm.h"
#include "kernels/spatial_attention.h"
#include "kernels/stream.h"

enum { GROUPS = 32 };

static const float EPS = 1e-6f; /* of every GroupNorm of taming's network */

/* A picture between two layers, in a slot. */
struct map {
    int slot, width, height, n_channels;
};

struct run {
    const struct codec_network *network;
    struct codec_plan *plan; /* written while memory is NULL, read otherwise */
    char *memory;
    size_t used[CODEC_SLOTS]; /* bytes each slot has needed so far; the same in both walks */
    bool busy[CODEC_SLOTS];
    float *scale, *shift; /* [channels_max] of the last norm */
    void *norm_workspace;
    struct conv2d_norm norm;
    enum status status;
};

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static bool idle(const struct run *run)
{
    return !run->memory || run->status != STATUS_OK;
}

static void run_init(struct run *run, const struct codec_network *network, struct codec_plan *plan,
                     void *memory)
{
    *run = (struct run){.network = network, .plan = plan, .memory = memory};
    size_t channel_bytes = round_up(sizeof(float) * network->channels_max);
    if (!memory) {
        memset(plan, 0, sizeof(*plan));
        plan->norm_bytes =
            2 * channel_bytes + round_up(group_norm_workspace_bytes(network->channels_max));
        return;
    }
    char *norm = run->memory + plan->bytes - plan->norm_bytes;
    run->scale = (float *)norm;
    run->shift = (float *)(norm + channel_bytes);
    run->norm_workspace = norm + 2 * channel_bytes;
}

static void finish_plan(struct codec_plan *plan)
{
    plan->bytes = plan->norm_bytes;
    for (int i = 0; i < CODEC_SLOTS; i++)
        plan->bytes += plan->slot_bytes[i];
}

/* A free slot; the one that is largest already, so that few become large. */
static struct map acquire(struct run *run, int width, int height, int n_channels)
{
    int best = -1;
    for (int i = 0; i < CODEC_SLOTS; i++)
        if (!run->busy[i] && (best < 0 || run->used[i] > run->used[best]))
            best = i;
    CHECK(best >= 0);
    size_t bytes = round_up(sizeof(float) * width * height * n_channels);
    run->busy[best] = true;
    if (bytes > run->used[best])
        run->used[best] = bytes;
    if (!run->memory)
        run->plan->slot_bytes[best] = run->used[best];
    CHECK(run->used[best] <= run->plan->slot_bytes[best]);
    return (struct map){best, width, height, n_channels};
}

static void release(struct run *run, struct map map)
{
    CHECK(run->busy[map.slot]);
    run->busy[map.slot] = false;
}

static void *map_data(const struct run *run, struct map map)
{
    char *data = run->memory;
    for (int i = 0; i < map.slot; i++)
        data += run->plan->slot_bytes[i];
    return data;
}

/* Measures x for a norm; the result holds until the next call. */
static const struct conv2d_norm *measure(struct run *run, struct map x,
                                         const struct codec_norm *norm, bool swish)
{
    run->norm = (struct conv2d_norm){run->scale, run->shift, swish};
    if (!idle(run))
        run->status = group_norm(run->scale, run->shift, map_data(run, x), norm->weight, norm->bias,
                                 x.width * x.height, x.n_channels, GROUPS, EPS, run->norm_workspace,
                                 run->network->stream);
    return &run->norm;
}

/* A new map = conv(norm(x)); x stays. */
static struct map convolve(struct run *run, struct map x, const struct conv2d_weight *weight,
                           const struct conv2d_norm *norm)
{
    const struct conv2d_shape *shape = conv2d_weight_shape(weight);
    struct map y = acquire(run, conv2d_side(shape->kind, x.width),
                           conv2d_side(shape->kind, x.height), shape->n_out);
    CHECK(x.n_channels == shape->n_in);
    if (!idle(run))
        run->status = conv2d(map_data(run, y), map_data(run, x), weight, norm, NULL, x.width,
                             x.height, run->network->stream);
    return y;
}

/* The same, x is given back. */
static struct map replace(struct run *run, struct map x, const struct conv2d_weight *weight,
                          const struct conv2d_norm *norm)
{
    struct map y = convolve(run, x, weight, norm);
    release(run, x);
    return y;
}

/* y += conv(norm(x)); x is given back. */
static void add_convolved(struct run *run, struct map y, struct map x,
                          const struct conv2d_weight *weight, const struct conv2d_norm *norm)
{
    CHECK(y.n_channels == conv2d_weight_shape(weight)->n_out);
    if (!idle(run))
        run->status = conv2d(map_data(run, y), map_data(run, x), weight, norm, map_data(run, y),
                             x.width, x.height, run->network->stream);
    release(run, x);
}

static struct map run_res_block(struct run *run, struct map x, const struct codec_res_block *block)
{
    struct map h = convolve(run, x, block->conv1, measure(run, x, &block->norm1, true));
    if (block->shortcut)
        x = replace(run, x, block->shortcut, NULL);
    add_convolved(run, x, h, block->conv2, measure(run, h, &block->norm2, true));
    return x;
}

static void run_attention(struct run *run, struct map x, const struct codec_attention *attention)
{
    const struct conv2d_norm *norm = measure(run, x, &attention->norm, false);
    struct map q = convolve(run, x, attention->q, norm);
    struct map k = convolve(run, x, attention->k, norm);
    struct map v = convolve(run, x, attention->v, norm);
    int n_pixels = x.width * x.height;
    size_t bytes = spatial_attention_workspace_bytes(n_pixels, x.n_channels);
    struct map workspace = acquire(run, 1, 1, (int)(bytes / sizeof(float)));
    if (!idle(run))
        run->status = spatial_attention(map_data(run, q), map_data(run, q), map_data(run, k),
                                        map_data(run, v), n_pixels, x.n_channels,
                                        map_data(run, workspace), run->network->stream);
    release(run, workspace);
    release(run, k);
    release(run, v);
    add_convolved(run, x, q, attention->proj_out, NULL);
}

static struct map run_level(struct run *run, struct map x, const struct codec_level *level,
                            int n_blocks)
{
    for (int b = 0; b < n_blocks; b++) {
        x = run_res_block(run, x, &level->blocks[b]);
        if (level->has_attention)
            run_attention(run, x, &level->attention[b]);
    }
    return level->resample ? replace(run, x, level->resample, NULL) : x;
}

static struct map run_middle(struct run *run, struct map x, const struct codec_half *half)
{
    x = run_res_block(run, x, &half->mid_1);
    run_attention(run, x, &half->mid_attention);
    return run_res_block(run, x, &half->mid_2);
}

static struct map run_output(struct run *run, struct map x, const struct codec_half *half)
{
    return replace(run, x, half->conv_out, measure(run, x, &half->norm_out, true));
}

/* From a map of pixels to one of vectors beside the codebook. */
static struct map walk_encoder(struct run *run, struct map x)
{
    const struct codec_half *half = &run->network->encoder;
    x = replace(run, x, half->conv_in, NULL);
    for (int i = 0; i < half->n_levels; i++)
        x = run_level(run, x, &half->levels[i], half->n_blocks);
    x = run_middle(run, x, half);
    x = run_output(run, x, half);
    return replace(run, x, run->network->quant_conv, NULL);
}

/* From a map of codebook entries to one of pixels. */
static struct map walk_decoder(struct run *run, struct map x)
{
    const struct codec_half *half = &run->network->decoder;
    x = replace(run, x, run->network->post_quant_conv, NULL);
    x = replace(run, x, half->conv_in, NULL);
    x = run_middle(run, x, half);
    for (int i = half->n_levels - 1; i >= 0; i--)
        x = run_level(run, x, &half->levels[i], half->n_blocks);
    return run_output(run, x, half);
}

static int patch_of(const struct codec_network *network)
{
    return 1 << (network->config.n_levels - 1);
}

void codec_plan_encode(struct codec_plan *plan, const struct codec_network *network, int width,
                       int height)
{
    struct run run;
    run_init(&run, network, plan, NULL);
    struct map z = walk_encoder(&run, acquire(&run, width, height, 3));
    acquire(&run, z.width, z.height, 1);
    finish_plan(plan);
}

void codec_plan_decode(struct codec_plan *plan, const struct codec_network *network, int width,
                       int height)
{
    struct run run;
    int patch = patch_of(network);
    run_init(&run, network, plan, NULL);
    walk_decoder(&run, acquire(&run, width / patch, height / patch, network->config.embed_dim));
    finish_plan(plan);
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Waits for the kernels, also after one was refused. */
static enum status finish(struct run *run, struct error *err)
{
    enum status st = stream_wait(run->network->stream, err);
    if (run->status != STATUS_OK && st == STATUS_OK)
        error_set(err, run->status, "a kernel failed: %s", status_name(run->status));
    else
        run->status = st;
    return run->status;
}

/* What lies beside the codebook, fetched to be looked at. */
static enum status check_vectors(const struct run *run, struct map z, struct error *err)
{
    size_t n = (size_t)z.width * z.height * z.n_channels;
    float *copy = malloc(n * sizeof(*copy));
    if (!copy)
        return error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", n * sizeof(*copy));
    stream_download(run->network->stream, copy, map_data(run, z), n * sizeof(*copy));
    bool is_finite = all_finite(copy, n);
    free(copy);
    return is_finite ? STATUS_OK
                     : error_set(err, STATUS_INVALID,
                                 "the encoder's output is not finite; its weights are unusable");
}

enum status codec_run_encode(int32_t *codes, const float *pixels,
                             const struct codec_network *network, const struct codec_plan *plan,
                             void *memory, int width, int height, struct error *err)
{
    struct run run;
    struct codec_plan copy = *plan;
    run_init(&run, network, &copy, memory);
    struct map x = acquire(&run, width, height, 3);
    stream_upload(network->stream, map_data(&run, x), pixels,
                  sizeof(float) * width * height * x.n_channels);
    struct map z = walk_encoder(&run, x);
    struct map nearest = acquire(&run, z.width, z.height, 1);
    int n = z.width * z.height;
    if (!idle(&run))
        run.status = codebook_nearest(map_data(&run, nearest), map_data(&run, z), network->codebook,
                                      n, network->stream);
    if (finish(&run, err) != STATUS_OK)
        return error_wrap(err, run.status, "the encoder");
    stream_download(network->stream, codes, map_data(&run, nearest), sizeof(*codes) * n);
    return check_vectors(&run, z, err);
}

enum status codec_run_decode(float *pixels, const int32_t *codes,
                             const struct codec_network *network, const struct codec_plan *plan,
                             void *memory, int width, int height, struct error *err)
{
    struct run run;
    struct codec_plan copy = *plan;
    run_init(&run, network, &copy, memory);
    int patch = patch_of(network), n = width / patch * (height / patch);
    struct map z = acquire(&run, width / patch, height / patch, network->config.embed_dim);
    run.status = codebook_lookup(map_data(&run, z), codes, network->codebook, n, network->stream);
    struct map y = walk_decoder(&run, z);
    if (finish(&run, err) != STATUS_OK)
        return error_wrap(err, run.status, "the decoder");
    stream_download(network->stream, pixels, map_data(&run, y),
                    sizeof(float) * width * height * y.n_channels);
    if (!all_finite(pixels, (size_t)width * height * y.n_channels))
        return error_set(err, STATUS_INVALID,
                         "the decoder's output is not finite; its weights are unusable");
    return STATUS_OK;
}
