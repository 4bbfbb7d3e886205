/*
 * codec_network.h - the layers of a VQ-GAN with their weights, read from a checkpoint by taming's
 * names.
 *
 * Encoder and decoder have the same parts in opposite order: conv_in, levels of residual blocks
 * (with attention behind each block where the checkpoint has it) and a change of resolution between
 * levels, two residual blocks with attention between them, norm_out, conv_out. Owns: all weights,
 * in the stream's memory.
 */
#ifndef MGPT_WORKER_CODEC_NETWORK_H
#define MGPT_WORKER_CODEC_NETWORK_H

#include "kernels/codebook.h"
#include "kernels/conv2d.h"
#include "model/vqgan_checkpoint.h"

enum {
    CODEC_BLOCKS_MAX = VQGAN_RES_BLOCKS_MAX + 1
}; /* of a level; the decoder has one more than the yaml says */

struct codec_norm {
    float *weight, *bias; /* [n_channels]; one allocation, weight first */
    int n_channels;
};

struct codec_res_block {
    struct codec_norm norm1, norm2;
    struct conv2d_weight *conv1, *conv2;
    struct conv2d_weight *shortcut; /* NULL when the width stays */
};

struct codec_attention {
    struct codec_norm norm;
    struct conv2d_weight *q, *k, *v, *proj_out;
};

struct codec_level {
    struct codec_res_block blocks[CODEC_BLOCKS_MAX];
    struct codec_attention attention[CODEC_BLOCKS_MAX];
    bool has_attention;
    struct conv2d_weight *resample; /* behind the blocks; NULL at the last level that runs */
};

struct codec_half {
    struct conv2d_weight *conv_in, *conv_out;
    struct codec_level
        levels[VQGAN_LEVELS_MAX]; /* by taming's number: level 0 has the picture's resolution */
    int n_levels, n_blocks;       /* n_blocks of each level */
    struct codec_res_block mid_1, mid_2;
    struct codec_attention mid_attention;
    struct codec_norm norm_out;
};

struct codec_network {
    struct stream *stream; /* borrowed */
    struct vqgan_config config;
    struct codec_half encoder, decoder;
    struct conv2d_weight *quant_conv, *post_quant_conv;
    struct codebook *codebook;
    size_t weight_bytes;
    int channels_max; /* of any layer */
};

/* Fills *network from the checkpoint; also after an error network_fini() frees what was made. */
enum status codec_network_init(struct codec_network *network, struct vqgan_checkpoint *checkpoint,
                               struct stream *stream, struct error *err);
void codec_network_fini(struct codec_network *network);

#endif
