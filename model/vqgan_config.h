/*
 * vqgan_config.h - the sizes of the picture codec: vqgan.yaml of taming (model.params.ddconfig,
 * embed_dim, n_embed).
 *
 * In:   a YAML mapping; anchors and aliases are refused, depth and events are bounded, unknown keys
 * are skipped. Out:  struct vqgan_config, checked. STATUS_UNSUPPORTED: double_z, other than 3
 * colours.
 */
#ifndef MGPT_MODEL_VQGAN_CONFIG_H
#define MGPT_MODEL_VQGAN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

enum {
    VQGAN_YAML_BYTES_MAX = 1 << 20,
    VQGAN_YAML_EVENTS_MAX = 20000,
    VQGAN_YAML_DEPTH_MAX = 32,
    VQGAN_LEVELS_MAX = 8,
    VQGAN_CHANNELS_MAX = 4096,
    VQGAN_RES_BLOCKS_MAX = 16,
    VQGAN_CODES_MAX = 1 << 20
};

struct vqgan_config {
    int ch;       /* base width; a multiple of 32, the groups of GroupNorm */
    int n_levels; /* the picture is 2^(n_levels - 1) times the code map on a side */
    int ch_mult[VQGAN_LEVELS_MAX];    /* width of level i is ch * ch_mult[i] */
    bool attention[VQGAN_LEVELS_MAX]; /* behind each block of level i: resolution >> i is in
                                         attn_resolutions */
    int n_res_blocks;                 /* a level of the encoder; the decoder has one more */
    int z_channels;                   /* out of the encoder, into the decoder */
    int embed_dim;                    /* of a codebook entry; quant_conv maps z_channels to it */
    int n_embed;                      /* codebook entries */
};

enum status vqgan_config_load(struct vqgan_config *out, const char *path, struct error *err);

/* The same from memory; `name` stands for the file in error texts. */
enum status vqgan_config_parse(struct vqgan_config *out, const void *text, size_t bytes,
                               const char *name, struct error *err);

#endif
