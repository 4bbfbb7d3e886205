/*
 * codec.h - pictures to codes and back by the VQ-GAN of a checkpoint (taming's network, read from
 * vqgan.yaml).
 *
 * In:      8-bit RGB rows without gaps, or codes in rows of width / 16.   Out: the other of the
 * two. Owns:    the packed weights, from codec_create() on, and work memory. On a device that of
 * the largest picture, reserved by codec_create(); on the CPU that of one call, reserved at its
 * start and given back at its end, so that an idle codec holds weights only.
 * Threads: one caller at a time; the work is shared out on the stream's pool. Results do not depend
 * on its size.
 */
#ifndef MGPT_WORKER_CODEC_H
#define MGPT_WORKER_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/plan.h"

struct stream;

enum {
    CODEC_PATCH = 16, /* pixels a code stands for, each way; the token grammar fixes it */
    CODEC_SIDE_MAX = PLAN_PICTURE_SIDE_MAX,
    CODEC_PIXELS_MAX = PLAN_PICTURE_PIXELS_MAX
};

struct codec;

struct codec_options {
    const char *vq_dir;    /* folder that holds vqgan.yaml and vqgan.ckpt */
    struct stream *stream; /* borrowed; must outlive the codec */
    int pixels_max;        /* of a picture; 0: CODEC_PIXELS_MAX */
};

/* Is this size one that encode and decode take: sides multiples of CODEC_PATCH, within the limits
 * above and those of codec_create()? */
enum status codec_check_size(const struct codec *codec, int width, int height, struct error *err);

/*
 * Reads vqgan.yaml and vqgan.ckpt and packs the weights for the stream's code path.
 *
 * STATUS_NOT_FOUND, STATUS_IO, STATUS_INVALID, STATUS_NOMEM: as the text says (the device has less
 * free than the weights and the largest picture need).
 * STATUS_UNSUPPORTED: another patch than CODEC_PATCH, or an option of the network that is not
 * offered. On error *out is NULL and nothing is held.
 */
enum status codec_create(struct codec **out, const struct codec_options *opt, struct error *err);
void codec_destroy(struct codec *codec); /* NULL is fine */

int codec_n_codes(const struct codec *codec);         /* entries of the codebook */
size_t codec_weight_bytes(const struct codec *codec); /* memory of the packed weights */

/* The larger of what encoding and decoding a picture of this (allowed) size need. */
size_t codec_work_bytes(const struct codec *codec, int width, int height);

/* Of it, what is held all the time: 0 on the CPU. */
size_t codec_reserved_bytes(const struct codec *codec);

/*
 * codes[height / 16 * width / 16] of rgb[height * width * 3], row by row; 0 <= code <
 * codec_n_codes(). STATUS_INVALID: the size.  STATUS_NOMEM: the work memory.
 */
enum status codec_encode(struct codec *codec, const uint8_t *rgb, int width, int height,
                         int32_t *codes, struct error *err);

/*
 * rgb[height * width * 3] of codes[height / 16 * width / 16].
 * STATUS_INVALID: the size, or a code that is not in the codebook.  STATUS_NOMEM: the work memory.
 */
enum status codec_decode(struct codec *codec, const int32_t *codes, int width, int height,
                         uint8_t *rgb, struct error *err);

#endif
