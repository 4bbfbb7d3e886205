/*
 * codec_levels_test.c - goal: the codec walks networks of other shapes as taming's code does:
 * attention at levels, widths that change up and down, a z and a codebook of odd sizes, a patch of
 * another size refused.
 *
 * A plain walk over the twins of the kernels makes each tensor when it first meets its name,
 * applies it, and writes it to a checkpoint; then the codec reads that checkpoint and must give the
 * same picture and codes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/codebook.h"
#include "kernels/conv2d.h"
#include "kernels/group_norm.h"
#include "kernels/spatial_attention.h"
#include "kernels/stream.h"
#include "model/random_weights.h"
#include "model/test_folder.h"
#include "model/torch_write.h"
#include "worker/codec.h"

enum {
    CH = 32,
    N_LEVELS = 5,
    N_BLOCKS = 1,
    Z = 20,
    EMBED = 12,
    N_CODES = 45,
    WIDTH = 48,
    HEIGHT = 32,
    N = WIDTH / CODEC_PATCH * HEIGHT / CODEC_PATCH,
    NAME_BYTES = 96
};

static const int mult[N_LEVELS] = {1, 2, 1, 1, 2};
static const bool attends[N_LEVELS] = {false, true, false, false,
                                       true}; /* resolutions 128 and 16 of 256 */

struct map {
    int width, height, n_channels;
    float *x; /* [height, width, n_channels] */
};

struct walk {
    struct torch_writer *writer;
    struct random_weights *random;
    const char *side; /* what stands before names: "encoder." */
};

static float *floats(size_t n)
{
    float *x = malloc(sizeof(*x) * n);
    assert_non_null(x);
    return x;
}

/* A tensor that exists from now on. The caller frees it. */
static float *make_tensor(struct walk *walk, const char *name, const char *leaf, int rank,
                          const int64_t *shape, float mean, float deviation)
{
    char full[NAME_BYTES];
    size_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= (size_t)shape[i];
    float *data = floats(n);
    snprintf(full, sizeof(full), "%s%s.%s", walk->side, name, leaf);
    random_weights_start(walk->random, 5, full, mean, deviation);
    random_weights_fill_f32(walk->random, data, n);
    assert_int_equal(torch_writer_add(walk->writer, full, rank, shape, data, NULL), STATUS_OK);
    return data;
}

static struct map new_map(int width, int height, int n_channels)
{
    return (struct map){width, height, n_channels, floats((size_t)width * height * n_channels)};
}

static struct map conv(struct walk *walk, struct map x, const char *name, int n_out, int kernel,
                       enum conv2d_kind kind)
{
    struct conv2d_shape shape = {x.n_channels, n_out, kernel, kind};
    const int64_t sides[4] = {n_out, x.n_channels, kernel, kernel};
    float deviation = 1.0f / sqrtf((float)x.n_channels * kernel * kernel);
    float *weight = make_tensor(walk, name, "weight", 4, sides, 0, deviation);
    float *bias = make_tensor(walk, name, "bias", 1, sides, 0, 0.1f);
    struct map y = new_map(conv2d_side(kind, x.width), conv2d_side(kind, x.height), n_out);
    conv2d_ref(y.x, x.x, &shape, weight, bias, NULL, NULL, x.width, x.height);
    free(weight);
    free(bias);
    return y;
}

static struct map replace(struct walk *walk, struct map x, const char *name, int n_out, int kernel,
                          enum conv2d_kind kind)
{
    struct map y = conv(walk, x, name, n_out, kernel, kind);
    free(x.x);
    return y;
}

static struct map norm(struct walk *walk, struct map x, const char *name, bool swish)
{
    const int64_t side = x.n_channels;
    float *weight = make_tensor(walk, name, "weight", 1, &side, 1, 0.1f);
    float *bias = make_tensor(walk, name, "bias", 1, &side, 0, 0.1f);
    float *scale = floats(side), *shift = floats(side);
    struct map y = new_map(x.width, x.height, x.n_channels);
    group_norm_ref(scale, shift, x.x, weight, bias, x.width * x.height, x.n_channels, 32, 1e-6f);
    for (int i = 0; i < x.width * x.height * x.n_channels; i++) {
        float v = x.x[i] * scale[i % side] + shift[i % side];
        y.x[i] = swish ? v / (1.0f + expf(-v)) : v;
    }
    free(weight);
    free(bias);
    free(scale);
    free(shift);
    return y;
}

static void add(struct map x, struct map h)
{
    for (int i = 0; i < x.width * x.height * x.n_channels; i++)
        x.x[i] += h.x[i];
    free(h.x);
}

static const char *join(char full[NAME_BYTES], const char *prefix, const char *leaf)
{
    snprintf(full, NAME_BYTES, "%s.%s", prefix, leaf);
    return full;
}

static struct map res_block(struct walk *walk, struct map x, const char *prefix, int n_out)
{
    char name[NAME_BYTES];
    struct map h = norm(walk, x, join(name, prefix, "norm1"), true);
    h = replace(walk, h, join(name, prefix, "conv1"), n_out, 3, CONV2D_SAME);
    struct map g = norm(walk, h, join(name, prefix, "norm2"), true);
    free(h.x);
    g = replace(walk, g, join(name, prefix, "conv2"), n_out, 3, CONV2D_SAME);
    if (x.n_channels != n_out)
        x = replace(walk, x, join(name, prefix, "nin_shortcut"), n_out, 1, CONV2D_SAME);
    add(x, g);
    return x;
}

static void attention(struct walk *walk, struct map x, const char *prefix)
{
    char name[NAME_BYTES];
    int n = x.n_channels, n_pixels = x.width * x.height;
    struct map h = norm(walk, x, join(name, prefix, "norm"), false);
    struct map q = conv(walk, h, join(name, prefix, "q"), n, 1, CONV2D_SAME);
    struct map k = conv(walk, h, join(name, prefix, "k"), n, 1, CONV2D_SAME);
    struct map v = conv(walk, h, join(name, prefix, "v"), n, 1, CONV2D_SAME);
    float *scores = floats(n_pixels);
    spatial_attention_ref(h.x, q.x, k.x, v.x, n_pixels, n, scores);
    add(x, replace(walk, h, join(name, prefix, "proj_out"), n, 1, CONV2D_SAME));
    free(q.x);
    free(k.x);
    free(v.x);
    free(scores);
}

static struct map level(struct walk *walk, struct map x, const char *direction, int i, int n_blocks)
{
    char prefix[NAME_BYTES];
    for (int b = 0; b < n_blocks; b++) {
        snprintf(prefix, sizeof(prefix), "%s.%d.block.%d", direction, i, b);
        x = res_block(walk, x, prefix, CH * mult[i]);
        snprintf(prefix, sizeof(prefix), "%s.%d.attn.%d", direction, i, b);
        if (attends[i])
            attention(walk, x, prefix);
    }
    return x;
}

static struct map middle(struct walk *walk, struct map x)
{
    x = res_block(walk, x, "mid.block_1", x.n_channels);
    attention(walk, x, "mid.attn_1");
    return res_block(walk, x, "mid.block_2", x.n_channels);
}

static struct map output(struct walk *walk, struct map x, int n_out)
{
    struct map y = norm(walk, x, "norm_out", true);
    free(x.x);
    return replace(walk, y, "conv_out", n_out, 3, CONV2D_SAME);
}

static struct map encode(struct walk *walk, struct map x)
{
    char name[NAME_BYTES];
    walk->side = "encoder.";
    x = replace(walk, x, "conv_in", CH, 3, CONV2D_SAME);
    for (int i = 0; i < N_LEVELS; i++) {
        x = level(walk, x, "down", i, N_BLOCKS);
        snprintf(name, sizeof(name), "down.%d.downsample.conv", i);
        if (i < N_LEVELS - 1)
            x = replace(walk, x, name, x.n_channels, 3, CONV2D_DOWN);
    }
    x = output(walk, middle(walk, x), Z);
    walk->side = "";
    return replace(walk, x, "quant_conv", EMBED, 1, CONV2D_SAME);
}

static struct map decode(struct walk *walk, struct map x)
{
    char name[NAME_BYTES];
    walk->side = "";
    x = replace(walk, x, "post_quant_conv", Z, 1, CONV2D_SAME);
    walk->side = "decoder.";
    x = replace(walk, x, "conv_in", CH * mult[N_LEVELS - 1], 3, CONV2D_SAME);
    x = middle(walk, x);
    for (int i = N_LEVELS - 1; i >= 0; i--) {
        x = level(walk, x, "up", i, N_BLOCKS + 1);
        snprintf(name, sizeof(name), "up.%d.upsample.conv", i);
        if (i > 0)
            x = replace(walk, x, name, x.n_channels, 3, CONV2D_UP);
    }
    return output(walk, x, 3);
}

static void write_yaml(struct test_folder *folder, const char *ch_mult)
{
    char text[512];
    snprintf(text, sizeof(text),
             "model:\n  params:\n    embed_dim: %d\n    n_embed: %d\n    ddconfig:\n"
             "      double_z: false\n      z_channels: %d\n      resolution: 256\n"
             "      in_channels: 3\n      out_ch: 3\n      ch: %d\n      ch_mult: %s\n"
             "      num_res_blocks: %d\n      attn_resolutions: [16, 128]\n      dropout: 0.0\n",
             EMBED, N_CODES, Z, CH, ch_mult, N_BLOCKS);
    test_folder_write_text(folder, "vqgan.yaml", text);
}

struct answers {
    uint8_t rgb[HEIGHT * WIDTH * 3];     /* asked */
    int32_t codes[N];                    /* of rgb */
    int32_t asked[N];                    /* to be decoded */
    uint8_t decoded[HEIGHT * WIDTH * 3]; /* of asked */
};

/* Writes the checkpoint and gives the plain walk's answers. */
static void make_checkpoint(struct test_folder *folder, struct answers *answers)
{
    struct walk walk = {.side = ""};
    write_yaml(folder, "[1, 2, 1, 1, 2]");
    assert_int_equal(random_weights_create(&walk.random, NULL), STATUS_OK);
    assert_int_equal(
        torch_writer_create(&walk.writer, test_folder_path(folder, "vqgan.ckpt"), NULL), STATUS_OK);
    float *entries =
        make_tensor(&walk, "quantize", "embedding.weight", 2, (int64_t[]){N_CODES, EMBED}, 0, 1);
    struct map x = new_map(WIDTH, HEIGHT, 3);
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++) {
        answers->rgb[i] = (uint8_t)(random_weights_mix((uint64_t)(i / 9)) >> 56);
        x.x[i] = (float)(answers->rgb[i] / 255.0 * 2 - 1);
    }
    x = encode(&walk, x);
    codebook_nearest_ref(answers->codes, x.x, entries, N, N_CODES, EMBED);
    for (int i = 0; i < N; i++) {
        answers->asked[i] = i * 7 % N_CODES;
        memcpy(x.x + i * EMBED, entries + answers->asked[i] * EMBED, sizeof(float) * EMBED);
    }
    x = decode(&walk, x);
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++)
        answers->decoded[i] = (uint8_t)((fminf(1, fmaxf(-1, x.x[i])) + 1) / 2 * 255);
    free(x.x);
    free(entries);
    assert_int_equal(torch_writer_finish(walk.writer, NULL), STATUS_OK);
    torch_writer_destroy(walk.writer);
    random_weights_destroy(walk.random);
}

static void test_attention_at_levels_and_odd_sizes(void **state)
{
    (void)state;
    static struct answers want, got;
    struct test_folder folder;
    struct stream *stream;
    struct codec *codec;
    struct error err = {0};
    const struct stream_options threads = {.n_threads = 2};
    test_folder_make(&folder);
    make_checkpoint(&folder, &want);
    assert_int_equal(stream_create(&stream, &threads, NULL), STATUS_OK);
    const struct codec_options options = {.vq_dir = folder.path, .stream = stream};
    if (codec_create(&codec, &options, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(codec_n_codes(codec), N_CODES);
    assert_int_equal(codec_encode(codec, want.rgb, WIDTH, HEIGHT, got.codes, NULL), STATUS_OK);
    assert_memory_equal(got.codes, want.codes, sizeof(want.codes));
    assert_int_equal(codec_decode(codec, want.asked, WIDTH, HEIGHT, got.decoded, NULL), STATUS_OK);
    int n_off = 0, lowest = 255, highest = 0;
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++) {
        assert_in_range(abs(got.decoded[i] - want.decoded[i]), 0, 1);
        n_off += got.decoded[i] != want.decoded[i];
        lowest = want.decoded[i] < lowest ? want.decoded[i] : lowest;
        highest = want.decoded[i] > highest ? want.decoded[i] : highest;
    }
    print_message("%d of %d values are one level off, they lie in %d..%d\n", n_off,
                  HEIGHT * WIDTH * 3, lowest, highest);
    assert_true(n_off < 20);
    assert_true(highest - lowest > 50); /* a flat picture would show nothing */
    codec_destroy(codec);
    stream_destroy(stream);
    test_folder_remove(&folder);
}

static void test_refuses_another_patch(void **state)
{
    (void)state;
    struct test_folder folder;
    struct stream *stream;
    struct codec *codec;
    struct error err;
    static struct answers answers;
    const struct stream_options threads = {.n_threads = 1};
    test_folder_make(&folder);
    make_checkpoint(&folder, &answers);
    write_yaml(&folder, "[1, 1, 2]");
    assert_int_equal(stream_create(&stream, &threads, NULL), STATUS_OK);
    const struct codec_options options = {.vq_dir = folder.path, .stream = stream};
    assert_int_equal(codec_create(&codec, &options, &err), STATUS_UNSUPPORTED);
    assert_null(codec);
    print_message("%s\n", err.text);
    write_yaml(&folder, "[1, 2, 1, 2, 2]"); /* not what the checkpoint holds */
    assert_int_equal(codec_create(&codec, &options, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "encoder.down.3.block.0.conv1.weight"));
    print_message("%s\n", err.text);
    stream_destroy(stream);
    test_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_at_levels_and_odd_sizes),
        cmocka_unit_test(test_refuses_another_patch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
