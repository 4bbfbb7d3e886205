/*
 * picture_file_test.c - goal: pictures of every kind come out as Pillow reads them, upright and in
 * 8 bits, and come back as they were written; damaged and lying files are refused before memory is
 * spent on them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include "model/file_bytes.h"
#include "model/picture_file.h"
#include "model/test_pictures.h"

static struct picture *read_golden(const char *name)
{
    struct picture *picture;
    struct error err = {0};
    if (picture_read_file(&picture, golden_path("pictures/", name), NULL, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return picture;
}

static void test_every_kind_of_file(void **state)
{
    (void)state;
    json_t *root = expected_json();
    const char *name;
    json_t *one;
    json_object_foreach(json_object_get(root, "files"), name, one)
    {
        struct picture *picture = read_golden(name);
        const json_t *size = json_object_get(one, "size");
        if (picture->width != json_integer_value(json_array_get(size, 0)) ||
            picture->height != json_integer_value(json_array_get(size, 1)) ||
            picture->channels != json_integer_value(json_object_get(one, "channels")))
            fail_msg("%s: %dx%d, %d channels", name, picture->width, picture->height,
                     picture->channels);
        int difference = largest_difference(picture, json_object_get(one, "pixels"));
        if (difference > json_integer_value(json_object_get(one, "tolerance")))
            fail_msg("%s: differs by %d", name, difference);
        picture_destroy(picture);
    }
    json_decref(root);
}

static void test_written_files_come_back(void **state)
{
    (void)state;
    for (int channels = 1; channels <= 4; channels++) {
        struct picture *in = pattern(33, 17, channels);
        static const struct picture_write_options lossless[] = {
            {.format = PICTURE_PNG}, {.format = PICTURE_WEBP, .quality = 101}};
        for (size_t i = 0; i < 2; i++) {
            uint8_t *bytes;
            size_t n;
            struct picture *out;
            assert_int_equal(picture_write(&bytes, &n, in, &lossless[i], NULL), STATUS_OK);
            assert_int_equal(picture_read(&out, bytes, n, NULL, NULL), STATUS_OK);
            if (lossless[i].format == PICTURE_PNG) {
                assert_int_equal(out->channels, channels);
                assert_memory_equal(out->pixels, in->pixels, picture_bytes(in));
            } else if (channels % 2 == 1) {
                struct picture *rgb;
                picture_to_rgb(&rgb, in, NULL);
                assert_memory_equal(out->pixels, rgb->pixels, picture_bytes(rgb));
                picture_destroy(rgb);
            }
            picture_destroy(out);
            free(bytes);
        }
        picture_destroy(in);
    }
}

static void test_lossy_files_come_back_alike(void **state)
{
    (void)state;
    struct picture *in = read_golden("plain3.png");
    for (int channels = 1; channels <= 4; channels++)
        for (int format = PICTURE_JPEG; format <= PICTURE_WEBP; format++) {
            struct picture *sized, *out;
            char name[] = "plain0.png";
            name[5] = (char)('0' + channels);
            sized = read_golden(name);
            struct picture_write_options options = {.format = (enum picture_format)format,
                                                    .quality = 95};
            uint8_t *bytes;
            size_t n;
            assert_int_equal(picture_write(&bytes, &n, sized, &options, NULL), STATUS_OK);
            assert_int_equal(picture_read(&out, bytes, n, NULL, NULL), STATUS_OK);
            struct picture *one, *two;
            picture_to_rgb(&one, out, NULL);
            picture_to_rgb(&two, sized, NULL);
            int64_t sum = 0;
            for (size_t i = 0; i < picture_bytes(one); i++)
                sum += abs(one->pixels[i] - two->pixels[i]);
            assert_true(sum / (int64_t)picture_bytes(one) < 25);
            picture_destroy(one);
            picture_destroy(two);
            picture_destroy(out);
            picture_destroy(sized);
            free(bytes);
        }
    picture_destroy(in);
}

static void test_texts_of_a_png(void **state)
{
    (void)state;
    struct picture *in = pattern(3, 2, 3);
    struct picture_text texts[] = {{"parameters", "a cat\nSteps: 20"}, {"prompt", "na\xc3\xafve"}};
    struct picture_write_options options = {.format = PICTURE_PNG, .texts = texts, .n_texts = 2};
    uint8_t *bytes;
    size_t n;
    assert_int_equal(picture_write(&bytes, &n, in, &options, NULL), STATUS_OK);
    assert_non_null(memmem(bytes, n, "tEXtparameters\0a cat\nSteps: 20", 30));
    assert_non_null(memmem(bytes, n, "iTXtprompt\0\0\0\0\0na\xc3\xafve", 21));
    free(bytes);
    static const char *const bad[] = {"", "na\xc3\xafve",
                                      "123456789012345678901234567890123456789012345678901234567890"
                                      "12345678901234567890"};
    for (size_t i = 0; i < 3; i++) {
        texts[0].key = bad[i];
        assert_int_equal(picture_write(&bytes, &n, in, &options, NULL), STATUS_INVALID);
        assert_null(bytes);
    }
    picture_destroy(in);
}

static void test_files_are_replaced_whole(void **state)
{
    (void)state;
    char folder[] = "/tmp/picture_file_test.XXXXXX";
    assert_non_null(mkdtemp(folder));
    char path[64], other[64];
    snprintf(path, sizeof(path), "%s/a.png", folder);
    snprintf(other, sizeof(other), "%s/none/a.png", folder);
    struct picture *in = pattern(5, 4, 3);
    struct picture *out;
    struct picture_write_options options = {.format = PICTURE_PNG};
    struct error err;
    for (int i = 0; i < 2; i++)
        assert_int_equal(picture_write_file(path, in, &options, NULL), STATUS_OK);
    assert_int_equal(picture_read_file(&out, path, NULL, NULL), STATUS_OK);
    picture_destroy(out);
    assert_int_equal(picture_write_file(other, in, &options, &err), STATUS_IO);
    assert_non_null(strstr(err.text, "no such file"));
    assert_int_equal(picture_write_file("/dev/null", in, &options, NULL), STATUS_OK);
    struct stat info;
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing else was left there */
    picture_destroy(in);
    assert_int_equal(picture_parse_format("out.PNG"), PICTURE_PNG);
    assert_int_equal(picture_parse_format("jpeg"), PICTURE_JPEG);
    assert_int_equal(picture_parse_format("a.b.webp"), PICTURE_WEBP);
    assert_int_equal(picture_parse_format("png.gif"), -1);
}

struct file {
    unsigned char *bytes;
    size_t n;
};

static struct file load(const char *name)
{
    struct file f;
    struct error err = {0};
    if (file_bytes_read(&f.bytes, &f.n, golden_path("pictures/", name), 1 << 20, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return f;
}

static const char *const samples[] = {
    "plain4.png", "palette.png", "interlaced.png", "rgb.jpg",   "cmyk.jpg",     "progressive.jpg",
    "lossy.webp", "turn6.webp",  "animated.webp",  "turn6.jpg", "animated.png", "grey16.png"};
enum { N_SAMPLES = sizeof(samples) / sizeof(samples[0]) };

/* What is cut anywhere is refused, or (behind the pixels) read. */
static void test_cut_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SAMPLES; i++) {
        struct file f = load(samples[i]);
        for (size_t n = 0; n < f.n; n++) {
            /* A copy of its own size: the address sanitizer sees a read behind its end. */
            uint8_t *cut = malloc(n + 1);
            memcpy(cut, f.bytes, n);
            cut = realloc(cut, n ? n : 1);
            struct picture *out;
            enum status st = picture_read(&out, cut, n, NULL, NULL);
            assert_true(st == STATUS_OK || !out);
            if (n < f.n / 2 && strncmp(samples[i], "animated", 8) != 0)
                assert_int_not_equal(st, STATUS_OK);
            picture_destroy(out);
            free(cut);
        }
        free(f.bytes);
    }
}

/* Every byte in turn is set to some other values: an answer or a reason, never a crash. Limits keep
 * it small. */
static void test_damaged_files(void **state)
{
    (void)state;
    struct picture_limits limits = {.side_max = 64, .pixels_max = 4096, .bytes_max = 1 << 20};
    static const uint8_t masks[] = {0xff, 0x80, 0x01};
    for (size_t i = 0; i < N_SAMPLES; i++) {
        struct file f = load(samples[i]);
        for (size_t at = 0; at < f.n; at++)
            for (size_t m = 0; m < sizeof(masks); m++) {
                f.bytes[at] ^= masks[m];
                struct picture *out;
                struct error err = {0};
                enum status st = picture_read(&out, f.bytes, f.n, &limits, &err);
                assert_true((st == STATUS_OK) == (out != NULL));
                if (out)
                    assert_true(out->width <= 64 && out->height <= 64);
                picture_destroy(out);
                f.bytes[at] ^= masks[m];
            }
        free(f.bytes);
    }
}

static void expect_refusal(const uint8_t *bytes, size_t n, const struct picture_limits *limits,
                           enum status expected, const char *text)
{
    struct picture *out;
    struct error err = {0};
    assert_int_equal(picture_read(&out, bytes, n, limits, &err), expected);
    assert_null(out);
    if (!strstr(err.text, text))
        fail_msg("'%s', expected '%s'", err.text, text);
}

static void test_limits_and_lying_headers(void **state)
{
    (void)state;
    struct file f = load("plain3.png");
    struct picture_limits limits = {.side_max = 12, .pixels_max = 96, .bytes_max = f.n};
    struct picture *out;
    assert_int_equal(picture_read(&out, f.bytes, f.n, &limits, NULL), STATUS_OK);
    picture_destroy(out);
    limits.side_max = 11;
    expect_refusal(f.bytes, f.n, &limits, STATUS_INVALID, "12x8 pixels, expected sides of 1 to 11");
    limits.side_max = 12;
    limits.pixels_max = 95;
    expect_refusal(f.bytes, f.n, &limits, STATUS_INVALID, "expected at most 95 in all");
    limits.pixels_max = 96;
    limits.bytes_max = f.n - 1;
    expect_refusal(f.bytes, f.n, &limits, STATUS_INVALID, "a picture file of");
    free(f.bytes);

    /* 50,000 pixels wide; 65,000 by 65,000 in a few bytes. */
    struct picture *wide = pattern(50000, 1, 1);
    uint8_t *bytes;
    size_t n;
    picture_write(&bytes, &n, wide, &(struct picture_write_options){.format = PICTURE_PNG}, NULL);
    expect_refusal(bytes, n, NULL, STATUS_INVALID, "50000x1 pixels, expected sides of 1 to 32768");
    free(bytes);
    picture_destroy(wide);
    static const uint8_t huge_jpeg[] = {0xff, 0xd8, 0xff, 0xc0, 0,    11, 8,    0xfd, 0xe8,
                                        0xfd, 0xe8, 1,    1,    0x11, 0,  0xff, 0xda, 0,
                                        8,    1,    1,    0,    0,    63, 0,    0xff, 0xd9};
    expect_refusal(huge_jpeg, sizeof(huge_jpeg), NULL, STATUS_INVALID, "65000x65000 pixels");

    /* A chunk of 2 GB that is not there: found by png_fuzz, libpng would allocate it. */
    f = load("plain3.png");
    memcpy(f.bytes + 33, "\x79\xf8\x00\x0czTXt", 8);
    expect_refusal(f.bytes, f.n, NULL, STATUS_INVALID,
                   "the chunk at byte 33 has 2046296076 bytes, but");
    free(f.bytes);

    expect_refusal((const uint8_t *)"", 0, NULL, STATUS_INVALID, "empty");
    expect_refusal((const uint8_t *)"GIF89a...........", 16, NULL, STATUS_UNSUPPORTED,
                   "no PNG, JPEG or WebP: it begins with 47 49 46 38");
    expect_refusal((const uint8_t *)"\x89PNG\r\n\x1a\n", 8, NULL, STATUS_INVALID, "PNG:");
    expect_refusal((const uint8_t *)"\xff\xd8\xff", 3, NULL, STATUS_INVALID, "JPEG:");
    expect_refusal((const uint8_t *)"RIFF\xff\xff\xff\x7fWEBPVP8 ", 16, NULL, STATUS_INVALID,
                   "WebP:");
    assert_int_equal(picture_create(&out, 0, 1, 3, NULL), STATUS_INVALID);
    assert_int_equal(picture_create(&out, 65535, 65535, 4, NULL), STATUS_INVALID);
    assert_int_equal(picture_create(&out, 1, 1, 5, NULL), STATUS_INVALID);
}

static void put_32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static double cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* Packed texts and profiles that nobody asked for are not unpacked: reading a PNG with a hundred of
 * them takes less time than unpacking one of each four. */
static void test_packed_texts_of_a_png_are_passed_over(void **state)
{
    (void)state;
    enum { UNPACKED = 7 << 20, PACKED_MAX = 1 << 16, BOMBS = 100, HEADER = 33 };
    struct file f = load("plain3.png");
    uint8_t *zeros = calloc(UNPACKED, 1), *bomb = malloc(PACKED_MAX + 64);
    uLongf n = PACKED_MAX, unpacked = UNPACKED;
    memcpy(bomb + 4, "zTXtkey\0\0", 9);
    assert_int_equal(compress2(bomb + 13, &n, zeros, UNPACKED, 9), Z_OK);
    put_32(bomb, (uint32_t)n + 5);
    put_32(bomb + 13 + n, (uint32_t)crc32(0, bomb + 4, (uInt)n + 9));
    size_t step = n + 17;
    uint8_t *all = malloc(f.n + BOMBS * step);
    memcpy(all, f.bytes, HEADER);
    for (size_t i = 0; i < BOMBS; i++)
        memcpy(all + HEADER + i * step, bomb, step);
    memcpy(all + HEADER + BOMBS * step, f.bytes + HEADER, f.n - HEADER);
    double start = cpu_seconds();
    for (int i = 0; i < BOMBS / 4; i++)
        assert_int_equal(uncompress(zeros, &unpacked, bomb + 13, n), Z_OK);
    double limit = cpu_seconds() - start;
    struct picture *out;
    struct error err = {0};
    start = cpu_seconds();
    if (picture_read(&out, all, f.n + BOMBS * step, NULL, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_true(cpu_seconds() - start < limit);
    picture_destroy(out);
    free(all);
    free(bomb);
    free(zeros);
    free(f.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_file),
        cmocka_unit_test(test_written_files_come_back),
        cmocka_unit_test(test_lossy_files_come_back_alike),
        cmocka_unit_test(test_texts_of_a_png),
        cmocka_unit_test(test_files_are_replaced_whole),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_limits_and_lying_headers),
        cmocka_unit_test(test_packed_texts_of_a_png_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
