/*
 * codec.c - checks sizes and codes, turns bytes into numbers and back, and lends the graph its work
 * memory.
 */
#include "worker/codec.h"

#include <stdlib.h>

#include "base/check.h"
#include "kernels/stream.h"
#include "model/vqgan_checkpoint.h"
#include "worker/codec_graph.h"

struct codec {
    struct stream *stream;
    struct codec_network network;
    int pixels_max;
    void *memory; /* [memory_bytes] of the device, for the plan of any picture; NULL on the CPU */
    size_t memory_bytes;
};

enum status codec_check_size(const struct codec *codec, int width, int height, struct error *err)
{
    if (width < CODEC_PATCH || height < CODEC_PATCH || width % CODEC_PATCH || height % CODEC_PATCH)
        return error_set(err, STATUS_INVALID,
                         "a picture of %dx%d has no codes: expected multiples of %d", width, height,
                         CODEC_PATCH);
    if (width > CODEC_SIDE_MAX || height > CODEC_SIDE_MAX || width > codec->pixels_max / height)
        return error_set(err, STATUS_INVALID,
                         "a picture of %dx%d is too large: expected sides up to %d and %d pixels",
                         width, height, CODEC_SIDE_MAX, codec->pixels_max);
    return STATUS_OK;
}

static enum status load(struct codec *codec, const char *vq_dir, struct error *err)
{
    struct vqgan_checkpoint *checkpoint;
    enum status st = vqgan_checkpoint_open(&checkpoint, vq_dir, err);
    if (st != STATUS_OK)
        return st;
    int patch = 1 << (vqgan_checkpoint_config(checkpoint)->n_levels - 1);
    if (patch == CODEC_PATCH)
        st = codec_network_init(&codec->network, checkpoint, codec->stream, err);
    else
        st = error_set(err, STATUS_UNSUPPORTED,
                       "'%s/vqgan.yaml': a code stands for %dx%d pixels, expected %dx%d (five "
                       "entries in ch_mult)",
                       vq_dir, patch, patch, CODEC_PATCH, CODEC_PATCH);
    vqgan_checkpoint_close(checkpoint);
    return st;
}

static size_t larger_plan(const struct codec *codec, int width, int height)
{
    struct codec_plan encode, decode;
    codec_plan_encode(&encode, &codec->network, width, height);
    codec_plan_decode(&decode, &codec->network, width, height);
    return encode.bytes > decode.bytes ? encode.bytes : decode.bytes;
}

/* What a plan needs depends on the number of pixels alone, whatever the sides. Each is asked, since
 * rounding may let a smaller picture need a little more. */
static size_t largest_plan(const struct codec *codec)
{
    size_t largest = 0;
    for (int n = 1; n <= codec->pixels_max / (CODEC_PATCH * CODEC_PATCH); n++) {
        size_t bytes = larger_plan(codec, n * CODEC_PATCH, CODEC_PATCH);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

static enum status reserve(struct codec *codec, struct error *err)
{
    size_t free_bytes, total_bytes;
    if (!stream_room(codec->stream, &free_bytes, &total_bytes))
        return STATUS_OK;
    codec->memory_bytes = largest_plan(codec);
    if (codec->memory_bytes > free_bytes)
        return error_set(err, STATUS_NOMEM,
                         "pictures of %d pixels need %zu MiB of device memory to work in, free are "
                         "%zu of %zu: allow smaller ones (mgptd: --picture-max)",
                         codec->pixels_max, codec->memory_bytes >> 20, free_bytes >> 20,
                         total_bytes >> 20);
    return stream_alloc(codec->stream, &codec->memory, codec->memory_bytes, err);
}

enum status codec_create(struct codec **out, const struct codec_options *opt, struct error *err)
{
    *out = NULL;
    struct codec *codec = calloc(1, sizeof(*codec));
    if (!codec)
        return error_set(err, STATUS_NOMEM, "cannot allocate the codec");
    codec->stream = opt->stream;
    codec->pixels_max = opt->pixels_max > 0 ? opt->pixels_max : CODEC_PIXELS_MAX;
    enum status st = load(codec, opt->vq_dir, err);
    if (st == STATUS_OK)
        st = reserve(codec, err);
    if (st != STATUS_OK) {
        codec_destroy(codec);
        return error_wrap(err, st, "cannot load the picture codec");
    }
    *out = codec;
    return STATUS_OK;
}

void codec_destroy(struct codec *codec)
{
    if (!codec)
        return;
    stream_free(codec->stream, codec->memory, codec->memory_bytes);
    codec_network_fini(&codec->network);
    free(codec);
}

int codec_n_codes(const struct codec *codec)
{
    return codec->network.config.n_embed;
}

size_t codec_weight_bytes(const struct codec *codec)
{
    return codec->network.weight_bytes;
}

static size_t pixel_bytes(int width, int height)
{
    return sizeof(float) * 3 * width * height;
}

size_t codec_work_bytes(const struct codec *codec, int width, int height)
{
    return larger_plan(codec, width, height) + pixel_bytes(width, height);
}

size_t codec_reserved_bytes(const struct codec *codec)
{
    return codec->memory ? codec->memory_bytes : 0;
}

/* The pixels of a call as numbers, and the memory of its plan. */
struct work {
    struct codec_plan plan;
    void *memory;
    float *pixels;
};

/* Finds or reserves what the plan says; also after an error end_work() gives back what was taken.
 */
static enum status begin_work(struct work *work, const struct codec *codec, int width, int height,
                              struct error *err)
{
    CHECK(!codec->memory || work->plan.bytes <= codec->memory_bytes);
    work->memory = codec->memory;
    work->pixels = malloc(pixel_bytes(width, height));
    enum status st = work->pixels ? STATUS_OK : STATUS_NOMEM;
    if (st == STATUS_OK && !codec->memory)
        st = stream_alloc(codec->stream, &work->memory, work->plan.bytes, NULL);
    if (st != STATUS_OK)
        error_set(err, st, "no memory for a picture of %dx%d: %zu MiB are needed", width, height,
                  (work->plan.bytes + pixel_bytes(width, height)) >> 20);
    return st;
}

static void end_work(struct work *work, const struct codec *codec)
{
    if (work->memory != codec->memory)
        stream_free(codec->stream, work->memory, work->plan.bytes);
    free(work->pixels);
}

/* As the reference does it: x / 255 * 2 - 1 in double, then f32. */
static void pixels_from_bytes(float *pixels, const uint8_t *rgb, size_t n)
{
    float values[256];
    for (int i = 0; i < 256; i++)
        values[i] = (float)(i / 255.0 * 2.0 - 1.0);
    for (size_t i = 0; i < n; i++)
        pixels[i] = values[rgb[i]];
}

/* Clamped to [-1, 1], (x + 1) / 2 * 255 in f32, the fraction dropped. */
static void pixels_to_bytes(uint8_t *rgb, const float *pixels, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = pixels[i] < -1.0f ? -1.0f : pixels[i] > 1.0f ? 1.0f : pixels[i];
        rgb[i] = (uint8_t)((x + 1.0f) / 2.0f * 255.0f);
    }
}

enum status codec_encode(struct codec *codec, const uint8_t *rgb, int width, int height,
                         int32_t *codes, struct error *err)
{
    struct work work;
    enum status st = codec_check_size(codec, width, height, err);
    if (st != STATUS_OK)
        return st;
    codec_plan_encode(&work.plan, &codec->network, width, height);
    st = begin_work(&work, codec, width, height, err);
    if (st == STATUS_OK) {
        pixels_from_bytes(work.pixels, rgb, (size_t)3 * width * height);
        st = codec_run_encode(codes, work.pixels, &codec->network, &work.plan, work.memory, width,
                              height, err);
    }
    end_work(&work, codec);
    return st;
}

static enum status check_codes(const struct codec *codec, const int32_t *codes, int n,
                               struct error *err)
{
    for (int i = 0; i < n; i++)
        if (codes[i] < 0 || codes[i] >= codec_n_codes(codec))
            return error_set(err, STATUS_INVALID, "code %d of the picture is %d, expected 0 to %d",
                             i, codes[i], codec_n_codes(codec) - 1);
    return STATUS_OK;
}

enum status codec_decode(struct codec *codec, const int32_t *codes, int width, int height,
                         uint8_t *rgb, struct error *err)
{
    struct work work;
    enum status st = codec_check_size(codec, width, height, err);
    if (st == STATUS_OK)
        st = check_codes(codec, codes, width / CODEC_PATCH * (height / CODEC_PATCH), err);
    if (st != STATUS_OK)
        return st;
    codec_plan_decode(&work.plan, &codec->network, width, height);
    st = begin_work(&work, codec, width, height, err);
    if (st == STATUS_OK)
        st = codec_run_decode(work.pixels, codes, &codec->network, &work.plan, work.memory, width,
                              height, err);
    if (st == STATUS_OK)
        pixels_to_bytes(rgb, work.pixels, (size_t)3 * width * height);
    end_work(&work, codec);
    return st;
}
