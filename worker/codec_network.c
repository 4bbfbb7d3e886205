/*
 * codec_network.c - reads the layers of a VQ-GAN and packs them; the names and the order of widths
 * are taming's.
 */
#include "worker/codec_network.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "kernels/stream.h"

enum { NAME_BYTES = 96 };

struct loader {
    struct codec_network *network;
    struct vqgan_checkpoint *checkpoint;
    char name[NAME_BYTES]; /* of the part being read, "decoder.up.3.block.1": enter() adds, leave()
                              cuts */
    float *buffer;         /* a tensor on its way from the file to its packed form, then the bias */
    size_t buffer_floats;
    struct error *err;
    enum status status; /* of the first failure; later steps do nothing */
};

static bool failed(const struct loader *loader)
{
    return loader->status != STATUS_OK;
}

static void fail(struct loader *loader, enum status status)
{
    if (!failed(loader))
        loader->status = status;
}

static bool grow_buffer(struct loader *loader, size_t floats)
{
    if (floats <= loader->buffer_floats)
        return true;
    free(loader->buffer);
    loader->buffer = malloc(sizeof(float) * floats);
    loader->buffer_floats = loader->buffer ? floats : 0;
    if (!loader->buffer)
        fail(loader,
             error_set(loader->err, STATUS_NOMEM, "cannot allocate %zu bytes to read a tensor",
                       sizeof(float) * floats));
    return loader->buffer != NULL;
}

/* Goes into a part of the part being read; the result is for leave(). */
static size_t enter(struct loader *loader, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static size_t enter(struct loader *loader, const char *format, ...)
{
    size_t before = strlen(loader->name), used = before;
    va_list args;
    if (used > 0)
        loader->name[used++] = '.';
    va_start(args, format);
    int length = vsnprintf(loader->name + used, sizeof(loader->name) - used, format, args);
    va_end(args);
    CHECK(used + length < sizeof(loader->name)); /* names are made here, of bounded numbers */
    return before;
}

static void leave(struct loader *loader, size_t before)
{
    loader->name[before] = 0;
}

static void read_tensor(struct loader *loader, const char *leaf, int rank, const int64_t *shape,
                        float *dst)
{
    if (failed(loader))
        return;
    size_t outside = enter(loader, "%s", leaf);
    fail(loader,
         vqgan_checkpoint_read(loader->checkpoint, loader->name, rank, shape, dst, loader->err));
    leave(loader, outside);
}

static struct conv2d_weight *load_conv(struct loader *loader, struct conv2d_shape shape,
                                       const char *name)
{
    const int64_t sides[4] = {shape.n_out, shape.n_in, shape.kernel, shape.kernel};
    size_t floats = (size_t)shape.n_out * shape.n_in * shape.kernel * shape.kernel;
    if (failed(loader) || !grow_buffer(loader, floats + shape.n_out))
        return NULL;
    size_t outside = enter(loader, "%s", name);
    read_tensor(loader, "weight", 4, sides, loader->buffer);
    read_tensor(loader, "bias", 1, sides, loader->buffer + floats);
    leave(loader, outside);
    struct conv2d_weight *weight = NULL;
    if (!failed(loader))
        fail(loader, conv2d_weight_create(&weight, &shape, loader->buffer, loader->buffer + floats,
                                          loader->network->stream, loader->err));
    if (weight)
        loader->network->weight_bytes += conv2d_weight_bytes(weight);
    int wider = shape.n_in > shape.n_out ? shape.n_in : shape.n_out;
    if (wider > loader->network->channels_max)
        loader->network->channels_max = wider;
    return weight;
}

static struct conv2d_shape same(int n_in, int n_out, int kernel)
{
    return (struct conv2d_shape){n_in, n_out, kernel, CONV2D_SAME};
}

static void load_norm(struct loader *loader, struct codec_norm *norm, int n_channels,
                      const char *name)
{
    const int64_t side = n_channels;
    size_t bytes = sizeof(float) * 2 * n_channels;
    if (failed(loader) || !grow_buffer(loader, 2 * (size_t)n_channels))
        return;
    size_t outside = enter(loader, "%s", name);
    read_tensor(loader, "weight", 1, &side, loader->buffer);
    read_tensor(loader, "bias", 1, &side, loader->buffer + n_channels);
    leave(loader, outside);
    if (!failed(loader))
        fail(loader,
             stream_alloc(loader->network->stream, (void **)&norm->weight, bytes, loader->err));
    if (failed(loader))
        return;
    norm->n_channels = n_channels;
    norm->bias = norm->weight + n_channels;
    stream_upload(loader->network->stream, norm->weight, loader->buffer, bytes);
    loader->network->weight_bytes += bytes;
}

static void load_res_block(struct loader *loader, struct codec_res_block *block, int n_in,
                           int n_out)
{
    load_norm(loader, &block->norm1, n_in, "norm1");
    block->conv1 = load_conv(loader, same(n_in, n_out, 3), "conv1");
    load_norm(loader, &block->norm2, n_out, "norm2");
    block->conv2 = load_conv(loader, same(n_out, n_out, 3), "conv2");
    if (n_in != n_out)
        block->shortcut = load_conv(loader, same(n_in, n_out, 1), "nin_shortcut");
}

static void load_attention(struct loader *loader, struct codec_attention *attention, int n)
{
    load_norm(loader, &attention->norm, n, "norm");
    attention->q = load_conv(loader, same(n, n, 1), "q");
    attention->k = load_conv(loader, same(n, n, 1), "k");
    attention->v = load_conv(loader, same(n, n, 1), "v");
    attention->proj_out = load_conv(loader, same(n, n, 1), "proj_out");
}

/* Blocks (and attention) of level i, which receives n_in channels and gives n_out; "down" or "up".
 */
static void load_level(struct loader *loader, struct codec_half *half, const char *direction, int i,
                       int n_in, int n_out)
{
    struct codec_level *level = &half->levels[i];
    size_t outside = enter(loader, "%s.%d", direction, i), inside;
    level->has_attention = loader->network->config.attention[i];
    for (int b = 0; b < half->n_blocks; b++) {
        inside = enter(loader, "block.%d", b);
        load_res_block(loader, &level->blocks[b], b == 0 ? n_in : n_out, n_out);
        leave(loader, inside);
        inside = enter(loader, "attn.%d", b);
        if (level->has_attention)
            load_attention(loader, &level->attention[b], n_out);
        leave(loader, inside);
    }
    leave(loader, outside);
}

static void load_middle(struct loader *loader, struct codec_half *half, int n)
{
    size_t outside = enter(loader, "mid.block_1");
    load_res_block(loader, &half->mid_1, n, n);
    leave(loader, outside);
    enter(loader, "mid.attn_1");
    load_attention(loader, &half->mid_attention, n);
    leave(loader, outside);
    enter(loader, "mid.block_2");
    load_res_block(loader, &half->mid_2, n, n);
    leave(loader, outside);
}

static void load_encoder(struct loader *loader, struct codec_half *half)
{
    const struct vqgan_config *config = &loader->network->config;
    char name[NAME_BYTES];
    size_t outside = enter(loader, "encoder");
    int width = config->ch;
    half->n_levels = config->n_levels;
    half->n_blocks = config->n_res_blocks;
    half->conv_in = load_conv(loader, same(3, width, 3), "conv_in");
    for (int i = 0; i < half->n_levels; i++) {
        int n_out = config->ch * config->ch_mult[i];
        load_level(loader, half, "down", i, width, n_out);
        width = n_out;
        if (i == half->n_levels - 1)
            break;
        snprintf(name, sizeof(name), "down.%d.downsample.conv", i);
        struct conv2d_shape shape = {width, width, 3, CONV2D_DOWN};
        half->levels[i].resample = load_conv(loader, shape, name);
    }
    load_middle(loader, half, width);
    load_norm(loader, &half->norm_out, width, "norm_out");
    half->conv_out = load_conv(loader, same(width, config->z_channels, 3), "conv_out");
    leave(loader, outside);
}

static void load_decoder(struct loader *loader, struct codec_half *half)
{
    const struct vqgan_config *config = &loader->network->config;
    char name[NAME_BYTES];
    size_t outside = enter(loader, "decoder");
    int width = config->ch * config->ch_mult[config->n_levels - 1];
    half->n_levels = config->n_levels;
    half->n_blocks = config->n_res_blocks + 1;
    half->conv_in = load_conv(loader, same(config->z_channels, width, 3), "conv_in");
    load_middle(loader, half, width);
    for (int i = half->n_levels - 1; i >= 0; i--) {
        int n_out = config->ch * config->ch_mult[i];
        load_level(loader, half, "up", i, width, n_out);
        width = n_out;
        if (i == 0)
            break;
        snprintf(name, sizeof(name), "up.%d.upsample.conv", i);
        struct conv2d_shape shape = {width, width, 3, CONV2D_UP};
        half->levels[i].resample = load_conv(loader, shape, name);
    }
    load_norm(loader, &half->norm_out, width, "norm_out");
    half->conv_out = load_conv(loader, same(width, 3, 3), "conv_out");
    leave(loader, outside);
}

static void load_codebook(struct loader *loader, const struct vqgan_config *config)
{
    const int64_t shape[2] = {config->n_embed, config->embed_dim};
    size_t floats = (size_t)config->n_embed * config->embed_dim;
    if (failed(loader) || !grow_buffer(loader, floats))
        return;
    read_tensor(loader, "quantize.embedding.weight", 2, shape, loader->buffer);
    if (failed(loader))
        return;
    fail(loader, codebook_create(&loader->network->codebook, loader->buffer, config->n_embed,
                                 config->embed_dim, loader->network->stream, loader->err));
    if (!failed(loader))
        loader->network->weight_bytes += codebook_bytes(loader->network->codebook);
}

enum status codec_network_init(struct codec_network *network, struct vqgan_checkpoint *checkpoint,
                               struct stream *stream, struct error *err)
{
    memset(network, 0, sizeof(*network));
    network->stream = stream;
    network->config = *vqgan_checkpoint_config(checkpoint);
    const struct vqgan_config *config = &network->config;
    struct loader loader = {.network = network, .checkpoint = checkpoint, .err = err};
    load_encoder(&loader, &network->encoder);
    network->quant_conv =
        load_conv(&loader, same(config->z_channels, config->embed_dim, 1), "quant_conv");
    load_codebook(&loader, config);
    network->post_quant_conv =
        load_conv(&loader, same(config->embed_dim, config->z_channels, 1), "post_quant_conv");
    load_decoder(&loader, &network->decoder);
    free(loader.buffer);
    return loader.status;
}

static void fini_norm(struct stream *stream, struct codec_norm *norm)
{
    stream_free(stream, norm->weight, sizeof(float) * 2 * norm->n_channels);
}

static void fini_res_block(struct stream *stream, struct codec_res_block *block)
{
    fini_norm(stream, &block->norm1);
    fini_norm(stream, &block->norm2);
    conv2d_weight_destroy(block->conv1);
    conv2d_weight_destroy(block->conv2);
    conv2d_weight_destroy(block->shortcut);
}

static void fini_attention(struct stream *stream, struct codec_attention *attention)
{
    fini_norm(stream, &attention->norm);
    conv2d_weight_destroy(attention->q);
    conv2d_weight_destroy(attention->k);
    conv2d_weight_destroy(attention->v);
    conv2d_weight_destroy(attention->proj_out);
}

static void fini_half(struct stream *stream, struct codec_half *half)
{
    conv2d_weight_destroy(half->conv_in);
    conv2d_weight_destroy(half->conv_out);
    for (int i = 0; i < half->n_levels; i++) {
        for (int b = 0; b < half->n_blocks; b++) {
            fini_res_block(stream, &half->levels[i].blocks[b]);
            fini_attention(stream, &half->levels[i].attention[b]);
        }
        conv2d_weight_destroy(half->levels[i].resample);
    }
    fini_res_block(stream, &half->mid_1);
    fini_res_block(stream, &half->mid_2);
    fini_attention(stream, &half->mid_attention);
    fini_norm(stream, &half->norm_out);
}

void codec_network_fini(struct codec_network *network)
{
    fini_half(network->stream, &network->encoder);
    fini_half(network->stream, &network->decoder);
    conv2d_weight_destroy(network->quant_conv);
    conv2d_weight_destroy(network->post_quant_conv);
    codebook_destroy(network->codebook);
}
