/*
 * codec_test.c - goal: the codec gives the reference's codes and pixels on both golden checkpoints,
 * the same bits for any number of threads, a plan that holds, and a clear refusal of what it cannot
 * do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>
#include <jansson.h>

#include "kernels/stream.h"
#include "model/picture_file.h"
#include "worker/codec.h"

#define GOLDEN MGPT_SOURCE_DIR "/tests/golden/"

enum { PATH_MAX_BYTES = 512, DECODE_LEVELS = 1, CODES_MAX = 1024 };

static const double MARGIN = 1e-3; /* below it the rounding of the reference itself decides */

static const char *const models[] = {"v7b", "v34b"};

enum { N_MODELS = sizeof(models) / sizeof(models[0]) };

struct golden {
    const char *model;
    struct stream *stream;
    struct codec *codec;
    json_t *cases; /* the whole file */
};

static void golden_init(struct golden *golden, const char *model, int n_threads)
{
    char path[PATH_MAX_BYTES];
    struct error err = {0};
    const struct stream_options threads = {.n_threads = n_threads};
    golden->model = model;
    assert_int_equal(stream_create(&golden->stream, &threads, NULL), STATUS_OK);
    snprintf(path, sizeof(path), GOLDEN "%s/model/tokenizer", model);
    const struct codec_options options = {.vq_dir = path, .stream = golden->stream};
    if (codec_create(&golden->codec, &options, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    snprintf(path, sizeof(path), GOLDEN "%s/cases/cases.json", model);
    golden->cases = json_load_file(path, JSON_ALLOW_NUL, NULL); /* tokenizer cases have some */
    assert_non_null(golden->cases);
}

static void golden_fini(struct golden *golden)
{
    codec_destroy(golden->codec);
    stream_destroy(golden->stream);
    json_decref(golden->cases);
}

static struct picture *read_picture(const struct golden *golden, const json_t *one, const char *key)
{
    char path[PATH_MAX_BYTES];
    struct picture *picture;
    snprintf(path, sizeof(path), GOLDEN "%s/cases/%s", golden->model,
             json_string_value(json_object_get(one, key)));
    assert_int_equal(picture_read_file(&picture, path, NULL, NULL), STATUS_OK);
    assert_int_equal(picture->channels, 3);
    return picture;
}

static int read_codes(int32_t *codes, const json_t *one)
{
    size_t i;
    json_t *code, *list = json_object_get(one, "codes");
    assert_in_range(json_array_size(list), 1, CODES_MAX);
    json_array_foreach(list, i, code) codes[i] = (int32_t)json_integer_value(code);
    return (int)json_array_size(list);
}

static void check_encode(const struct golden *golden, const json_t *one)
{
    int32_t got[CODES_MAX], want[CODES_MAX];
    struct picture *crop = read_picture(golden, one, "crop");
    int n = read_codes(want, one), n_wrong = 0;
    assert_int_equal(crop->width / CODEC_PATCH * (crop->height / CODEC_PATCH), n);
    assert_int_equal(
        codec_encode(golden->codec, crop->pixels, crop->width, crop->height, got, NULL), STATUS_OK);
    for (int i = 0; i < n; i++) {
        double margin = json_real_value(json_array_get(json_object_get(one, "code_margin"), i));
        if (got[i] == want[i])
            continue;
        n_wrong++;
        assert_true(margin < MARGIN);
    }
    print_message("%s %s: %d of %d codes differ\n", golden->model,
                  json_string_value(json_object_get(one, "crop")), n_wrong, n);
    picture_destroy(crop);
}

static void check_decode(const struct golden *golden, const json_t *one)
{
    int32_t codes[CODES_MAX];
    struct picture *want = read_picture(golden, one, "decoded");
    size_t n = picture_bytes(want), n_off = 0;
    uint8_t *got = malloc(n);
    assert_non_null(got);
    read_codes(codes, one);
    assert_int_equal(codec_decode(golden->codec, codes, want->width, want->height, got, NULL),
                     STATUS_OK);
    for (size_t i = 0; i < n; i++) {
        assert_in_range(abs(got[i] - want->pixels[i]), 0, DECODE_LEVELS);
        n_off += got[i] != want->pixels[i];
    }
    assert_true(n_off * 100 <
                n); /* a level off in one of a hundred: rounding; in more: something is wrong */
    print_message("%s %s: %zu of %zu values are one level off\n", golden->model,
                  json_string_value(json_object_get(one, "decoded")), n_off, n);
    free(got);
    picture_destroy(want);
}

static void test_golden_codes_and_pixels(void **state)
{
    (void)state;
    for (int m = 0; m < N_MODELS; m++) {
        struct golden golden;
        size_t i;
        json_t *one;
        golden_init(&golden, models[m], 2);
        assert_true(json_array_size(json_object_get(golden.cases, "images")) >= 10);
        json_array_foreach(json_object_get(golden.cases, "images"), i, one)
        {
            check_encode(&golden, one);
            check_decode(&golden, one);
        }
        golden_fini(&golden);
    }
}

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    enum { WIDTH = 96, HEIGHT = 48, N = WIDTH * HEIGHT / CODEC_PATCH / CODEC_PATCH };
    static uint8_t rgb[WIDTH * HEIGHT * 3], first[WIDTH * HEIGHT * 3], again[WIDTH * HEIGHT * 3];
    int32_t codes[N], codes_again[N];
    for (int i = 0; i < WIDTH * HEIGHT * 3; i++)
        rgb[i] = (uint8_t)(i * 7 + i / 100 * 31);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
        struct golden golden;
        golden_init(&golden, "v34b", n_threads);
        int32_t *to = n_threads == 1 ? codes : codes_again;
        uint8_t *pixels = n_threads == 1 ? first : again;
        assert_int_equal(codec_encode(golden.codec, rgb, WIDTH, HEIGHT, to, NULL), STATUS_OK);
        assert_int_equal(codec_decode(golden.codec, to, WIDTH, HEIGHT, pixels, NULL), STATUS_OK);
        golden_fini(&golden);
        if (n_threads == 1)
            continue;
        assert_memory_equal(codes, codes_again, sizeof(codes));
        assert_memory_equal(first, again, sizeof(first));
    }
}

static void test_refuses_sizes_and_codes(void **state)
{
    (void)state;
    struct golden golden;
    struct error err;
    uint8_t rgb[32 * 16 * 3];
    int32_t codes[2] = {0, 8192};
    golden_init(&golden, "v7b", 1);
    assert_int_equal(codec_n_codes(golden.codec), 8192);
    assert_int_equal(codec_check_size(golden.codec, 16, 8192, NULL), STATUS_OK);
    assert_int_equal(codec_check_size(golden.codec, 2048, 2048, NULL), STATUS_OK);
    assert_int_equal(codec_check_size(golden.codec, 2064, 2048, &err), STATUS_INVALID);
    assert_int_equal(codec_check_size(golden.codec, 16, 8208, &err), STATUS_INVALID);
    assert_int_equal(codec_check_size(golden.codec, 24, 16, &err), STATUS_INVALID);
    assert_int_equal(codec_check_size(golden.codec, 0, 16, &err), STATUS_INVALID);
    assert_int_equal(codec_check_size(golden.codec, -16, -16, &err), STATUS_INVALID);
    assert_int_equal(codec_encode(golden.codec, rgb, 20, 16, codes, &err), STATUS_INVALID);
    assert_int_equal(codec_decode(golden.codec, codes, 32, 16, rgb, &err), STATUS_INVALID);
    assert_string_equal(err.text, "code 1 of the picture is 8192, expected 0 to 8191");
    codes[1] = -1;
    assert_int_equal(codec_decode(golden.codec, codes, 32, 16, rgb, &err), STATUS_INVALID);
    golden_fini(&golden);
}

/* Twice the side is four times the pixels and at most four times the memory; nothing grows faster.
 */
static void test_memory_grows_with_the_picture(void **state)
{
    (void)state;
    struct golden golden;
    golden_init(&golden, "v7b", 1);
    size_t small = codec_work_bytes(golden.codec, 256, 256);
    size_t large = codec_work_bytes(golden.codec, 512, 512);
    assert_true(large > 2 * small);
    assert_true(large <= 4 * small);
    assert_true(small <= (size_t)256 * 256 * 32 * sizeof(float) *
                             3); /* three maps of the base width, here 32 */
    assert_true(codec_weight_bytes(golden.codec) > 1 << 20);
    golden_fini(&golden);
}

/* The address space is the allocator that a test can make fail; sanitizers need it for themselves.
 */
static void test_no_memory_for_a_picture(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    struct golden golden;
    struct error err;
    struct rlimit before, tight;
    enum { SIDE = 2048, N_CODES = SIDE / CODEC_PATCH * SIDE / CODEC_PATCH };
    static uint8_t rgb[SIDE * SIDE * 3];
    static int32_t codes[N_CODES];
    golden_init(&golden, "v7b", 2);
    assert_int_equal(codec_decode(golden.codec, codes, 32, 32, rgb, NULL), STATUS_OK);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)400 << 20; /* the program and the codec fit, 2048 x 2048 needs 1 GiB */
    assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
    enum status decoded = codec_decode(golden.codec, codes, SIDE, SIDE, rgb, &err);
    enum status encoded = codec_encode(golden.codec, rgb, SIDE, SIDE, codes, NULL);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(decoded, STATUS_NOMEM);
    assert_int_equal(encoded, STATUS_NOMEM);
    assert_non_null(strstr(err.text, "no memory for a picture of 2048x2048"));
    assert_int_equal(codec_decode(golden.codec, codes, 32, 32, rgb, NULL), STATUS_OK);
    golden_fini(&golden);
}

static void test_missing_folder(void **state)
{
    (void)state;
    struct stream *stream;
    struct codec *codec;
    struct error err;
    const struct stream_options threads = {.n_threads = 1};
    assert_int_equal(stream_create(&stream, &threads, NULL), STATUS_OK);
    const struct codec_options options = {.vq_dir = GOLDEN "nowhere", .stream = stream};
    assert_int_not_equal(codec_create(&codec, &options, &err), STATUS_OK);
    assert_null(codec);
    assert_non_null(strstr(err.text, "nowhere"));
    codec_destroy(NULL);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_codes_and_pixels),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_refuses_sizes_and_codes),
        cmocka_unit_test(test_memory_grows_with_the_picture),
        cmocka_unit_test(test_no_memory_for_a_picture),
        cmocka_unit_test(test_missing_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
