/*
 * codec_device_test.c - goal: on a CUDA device (or the simulated one) the codec takes all its
 * memory when it is made, for the largest picture that was agreed on, and refuses larger ones in
 * words. Skipped where there is no device.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/device_test_tools.h"
#include "worker/codec.h"

enum { SIDE = 48, PIXELS = SIDE * SIDE, CODES = PIXELS / (CODEC_PATCH * CODEC_PATCH) };

static enum status open_codec(struct codec **out, struct stream *stream, int pixels_max,
                              struct error *err)
{
    const struct codec_options options = {.vq_dir =
                                              MGPT_SOURCE_DIR "/tests/golden/v7b/model/tokenizer",
                                          .stream = stream,
                                          .pixels_max = pixels_max};
    return codec_create(out, &options, err);
}

static void round_trip(struct codec *codec, int width, int height)
{
    static uint8_t rgb[PIXELS * 3];
    static int32_t codes[CODES];
    assert_int_equal(codec_encode(codec, rgb, width, height, codes, NULL), STATUS_OK);
    assert_int_equal(codec_decode(codec, codes, width, height, rgb, NULL), STATUS_OK);
}

static void test_all_memory_is_taken_at_start(void **state)
{
    (void)state;
    struct codec *codec;
    struct error err = {.text = ""};
    struct stream *stream = open_device();
    size_t before = stream_held_bytes(stream);
    if (open_codec(&codec, stream, PIXELS, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    size_t held = stream_held_bytes(stream), n_allocations = count_allocations();
    assert_true(codec_reserved_bytes(codec) > 0);
    assert_true(codec_reserved_bytes(codec) <= codec_work_bytes(codec, SIDE, SIDE));
    assert_true(held >= before + codec_weight_bytes(codec) + codec_reserved_bytes(codec));
    round_trip(codec, SIDE, SIDE);
    round_trip(codec, 16, 16);
    round_trip(codec, PIXELS / 16, 16); /* as many pixels in a strip */
    assert_int_equal(stream_held_bytes(stream), held);
    assert_int_equal(count_allocations(), n_allocations);
    codec_destroy(codec);
    assert_int_equal(stream_held_bytes(stream), before);
    stream_destroy(stream);
}

static void test_larger_pictures_are_refused(void **state)
{
    (void)state;
    struct codec *codec;
    struct error err = {.text = ""};
    int32_t codes[CODES + 16] = {0};
    uint8_t rgb[1];
    struct stream *stream = open_device();
    assert_int_equal(open_codec(&codec, stream, PIXELS, &err), STATUS_OK);
    assert_int_equal(codec_decode(codec, codes, SIDE + 16, SIDE, rgb, &err), STATUS_INVALID);
    assert_string_equal(err.text, "a picture of 64x48 is too large: expected sides up to 8192 and "
                                  "2304 pixels");
    codec_destroy(codec);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_memory_is_taken_at_start),
        cmocka_unit_test(test_larger_pictures_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
