/*
 * checkpoint_writer_codec.c - a small picture codec: all of taming's layers, few channels, random
 * weights.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/checkpoint_writer_parts.h"
#include "model/random_weights.h"
#include "model/torch_write.h"

enum {
    CH = 32,
    N_LEVELS = 5,
    N_RES_BLOCKS = 1,
    Z_CHANNELS = 32,
    EMBED_DIM = 32,
    N_EMBED = 8192,
    NAME_BYTES = 96
};

static const int ch_mult[N_LEVELS] = {1, 1, 1, 1,
                                      2}; /* one change of width, so that nin_shortcut occurs */

struct codec {
    struct torch_writer *writer;
    struct random_weights *random;
    uint64_t seed;
    enum status status; /* of the first failure; what comes after it does nothing */
    struct error *err;
};

static void put_tensor(struct codec *codec, const char *name, int rank, const int64_t *shape,
                       float mean, float deviation)
{
    if (codec->status != STATUS_OK)
        return;
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)shape[i];
    float *data = malloc(n * sizeof(*data));
    if (!data) {
        codec->status = error_set(codec->err, STATUS_NOMEM, "cannot allocate tensor '%s'", name);
        return;
    }
    random_weights_start(codec->random, codec->seed, name, mean, deviation);
    random_weights_fill_f32(codec->random, data, n);
    codec->status = torch_writer_add(codec->writer, name, rank, shape, data, codec->err);
    free(data);
}

static void put_conv(struct codec *codec, const char *prefix, const char *name, int n_out, int n_in,
                     int size)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof(full), "%s%s.weight", prefix, name);
    put_tensor(codec, full, 4, (int64_t[]){n_out, n_in, size, size}, 0,
               1 / sqrtf((float)(n_in * size * size)));
    snprintf(full, sizeof(full), "%s%s.bias", prefix, name);
    put_tensor(codec, full, 1, (int64_t[]){n_out}, 0, 0.02f);
}

static void put_norm(struct codec *codec, const char *prefix, const char *name, int n)
{
    char full[NAME_BYTES];
    snprintf(full, sizeof(full), "%s%s.weight", prefix, name);
    put_tensor(codec, full, 1, (int64_t[]){n}, 1, 0.02f);
    snprintf(full, sizeof(full), "%s%s.bias", prefix, name);
    put_tensor(codec, full, 1, (int64_t[]){n}, 0, 0.02f);
}

static void put_block(struct codec *codec, const char *prefix, int n_in, int n_out)
{
    put_norm(codec, prefix, "norm1", n_in);
    put_conv(codec, prefix, "conv1", n_out, n_in, 3);
    put_norm(codec, prefix, "norm2", n_out);
    put_conv(codec, prefix, "conv2", n_out, n_out, 3);
    if (n_in != n_out)
        put_conv(codec, prefix, "nin_shortcut", n_out, n_in, 1);
}

static void put_middle(struct codec *codec, const char *side, int n)
{
    static const char *const products[] = {"q", "k", "v", "proj_out"};
    char prefix[NAME_BYTES / 2];
    for (int block = 1; block <= 2; block++) {
        snprintf(prefix, sizeof(prefix), "%s.mid.block_%d.", side, block);
        put_block(codec, prefix, n, n);
    }
    snprintf(prefix, sizeof(prefix), "%s.mid.attn_1.", side);
    put_norm(codec, prefix, "norm", n);
    for (int i = 0; i < 4; i++)
        put_conv(codec, prefix, products[i], n, n, 1);
}

static void put_encoder(struct codec *codec)
{
    char prefix[NAME_BYTES / 2];
    int width = CH;
    put_conv(codec, "encoder.", "conv_in", CH, 3, 3);
    for (int level = 0; level < N_LEVELS; level++) {
        for (int block = 0; block < N_RES_BLOCKS; block++) {
            snprintf(prefix, sizeof(prefix), "encoder.down.%d.block.%d.", level, block);
            put_block(codec, prefix, width, CH * ch_mult[level]);
            width = CH * ch_mult[level];
        }
        snprintf(prefix, sizeof(prefix), "encoder.down.%d.downsample.", level);
        if (level < N_LEVELS - 1)
            put_conv(codec, prefix, "conv", width, width, 3);
    }
    put_middle(codec, "encoder", width);
    put_norm(codec, "encoder.", "norm_out", width);
    put_conv(codec, "encoder.", "conv_out", Z_CHANNELS, width, 3);
}

static void put_decoder(struct codec *codec)
{
    char prefix[NAME_BYTES / 2];
    int width = CH * ch_mult[N_LEVELS - 1];
    put_conv(codec, "decoder.", "conv_in", width, Z_CHANNELS, 3);
    put_middle(codec, "decoder", width);
    for (int level = N_LEVELS - 1; level >= 0; level--) {
        for (int block = 0; block < N_RES_BLOCKS + 1; block++) {
            snprintf(prefix, sizeof(prefix), "decoder.up.%d.block.%d.", level, block);
            put_block(codec, prefix, width, CH * ch_mult[level]);
            width = CH * ch_mult[level];
        }
        snprintf(prefix, sizeof(prefix), "decoder.up.%d.upsample.", level);
        if (level > 0)
            put_conv(codec, prefix, "conv", width, width, 3);
    }
    put_norm(codec, "decoder.", "norm_out", width);
    put_conv(codec, "decoder.", "conv_out", 3, width, 3);
}

static enum status write_yaml(const char *folder, struct error *err)
{
    char text[640], mult[64] = "";
    for (int i = 0; i < N_LEVELS; i++)
        snprintf(mult + strlen(mult), sizeof(mult) - strlen(mult), "%s%d", i ? ", " : "",
                 ch_mult[i]);
    snprintf(text, sizeof(text),
             "model:\n"
             "  params:\n"
             "    embed_dim: %d\n"
             "    n_embed: %d\n"
             "    ddconfig:\n"
             "      double_z: false\n"
             "      z_channels: %d\n"
             "      resolution: 512\n"
             "      in_channels: 3\n"
             "      out_ch: 3\n"
             "      ch: %d\n"
             "      ch_mult: [%s]\n"
             "      num_res_blocks: %d\n"
             "      attn_resolutions: []\n"
             "      dropout: 0.0\n",
             EMBED_DIM, N_EMBED, Z_CHANNELS, CH, mult, N_RES_BLOCKS);
    return checkpoint_writer_text(folder, "vqgan.yaml", text, err);
}

static enum status write_ckpt(const char *folder, uint64_t seed, struct error *err)
{
    struct codec codec = {.seed = seed, .err = err};
    char *path;
    if (asprintf(&path, "%s/vqgan.ckpt", folder) < 0)
        return error_set(err, STATUS_NOMEM, "cannot allocate the path of '%s/vqgan.ckpt'", folder);
    codec.status = random_weights_create(&codec.random, err);
    if (codec.status == STATUS_OK)
        codec.status = torch_writer_create(&codec.writer, path, err);
    put_encoder(&codec);
    put_decoder(&codec);
    put_tensor(&codec, "quantize.embedding.weight", 2, (int64_t[]){N_EMBED, EMBED_DIM}, 0, 1);
    put_conv(&codec, "", "quant_conv", EMBED_DIM, Z_CHANNELS, 1);
    put_conv(&codec, "", "post_quant_conv", Z_CHANNELS, EMBED_DIM, 1);
    if (codec.status == STATUS_OK)
        codec.status = torch_writer_finish(codec.writer, err);
    torch_writer_destroy(codec.writer);
    random_weights_destroy(codec.random);
    free(path);
    return codec.status;
}

enum status checkpoint_writer_codec(const char *folder, uint64_t seed, struct error *err)
{
    enum status st = write_yaml(folder, err);
    return st == STATUS_OK ? write_ckpt(folder, seed, err) : st;
}
