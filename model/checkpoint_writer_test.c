/*
 * checkpoint_writer_test.c - what is made opens with our own readers, whole and in shards, and is a
 * function of the seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

#include "model/checkpoint_units.h"
#include "model/checkpoint_writer.h"
#include "model/random_weights.h"
#include "model/test_folder.h"
#include "model/tokenizer.h"
#include "model/vocabulary.h"
#include "model/vqgan_checkpoint.h"

static const char small[] = "hidden=32,inter=64,layers=2,heads=4,kv_heads=2,vocab=10000";

static void make(const char *path, const char *shape, uint64_t seed, uint64_t shard_bytes_max)
{
    struct checkpoint_writer_options options = {.seed = seed, .shard_bytes_max = shard_bytes_max};
    struct error err = {0};
    enum status st = checkpoint_writer_parse_shape(&options.config, shape, 0, &err);
    if (st == STATUS_OK)
        st = checkpoint_writer_write(path, &options, &err);
    if (st != STATUS_OK)
        print_error("%s\n", err.text);
    assert_int_equal(st, STATUS_OK);
}

static void digest_of(const char *folder, unsigned char digest[CHECKPOINT_DIGEST_BYTES])
{
    struct checkpoint *checkpoint;
    struct error err = {0};
    enum status st = checkpoint_open(&checkpoint, folder, &err);
    if (st != STATUS_OK)
        print_error("%s\n", err.text);
    assert_int_equal(st, STATUS_OK);
    assert_int_equal(checkpoint_check_units(checkpoint, &err), STATUS_OK);
    int n_units = units_count(checkpoint_config(checkpoint)->n_layers);
    assert_int_equal(checkpoint_digest(checkpoint, 0, n_units - 1, digest, &err), STATUS_OK);
    checkpoint_close(checkpoint);
}

static void opens_and_repeats(void **state)
{
    (void)state;
    struct test_folder folder;
    char path[4][80];
    unsigned char digest[4][CHECKPOINT_DIGEST_BYTES];
    test_folder_make(&folder);
    for (int i = 0; i < 4; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%d", folder.path, i);
        make(path[i], small, i == 3 ? 8 : 7, i == 1 ? 100000 : 0);
        digest_of(path[i], digest[i]);
    }
    assert_memory_equal(digest[0], digest[1], sizeof(digest[0])); /* shards or not */
    assert_memory_equal(digest[0], digest[2], sizeof(digest[0]));
    assert_memory_not_equal(digest[0], digest[3], sizeof(digest[0]));
    struct error err = {0};
    struct checkpoint_writer_options options = {.seed = 1};
    assert_int_equal(checkpoint_writer_parse_shape(&options.config, small, 0, &err), STATUS_OK);
    test_expect_error("not empty", checkpoint_writer_write(path[0], &options, &err), &err,
                      STATUS_INVALID, (const char *[]){path[0], "not empty"}, 2);
    assert_int_equal(checkpoint_writer_write("/proc/nowhere/x", &options, &err), STATUS_IO);
    test_folder_remove(&folder);
}

static void tokenizer_and_codec(void **state)
{
    (void)state;
    struct test_folder folder;
    struct tokenizer *tokenizer;
    struct vocabulary *vocabulary;
    struct vqgan_checkpoint *codec;
    struct ids ids = {0};
    struct error err = {0};
    char *text = NULL;
    size_t bytes;
    test_folder_make(&folder);
    make(folder.path, "hidden=16,inter=16,layers=1,heads=2,kv_heads=1,vocab=65536,swin=1,mp=1", 3,
         0);
    enum status st = tokenizer_open(&tokenizer, test_folder_path(&folder, "tokenizer.json"), &err);
    if (st != STATUS_OK)
        print_error("%s\n", err.text);
    assert_int_equal(st, STATUS_OK);
    assert_int_equal(tokenizer_n_ids(tokenizer), 65536);
    assert_int_equal(vocabulary_create(&vocabulary, tokenizer, &err), STATUS_OK);
    assert_int_equal(vocabulary->n_codes, 8192);
    assert_int_equal(vocabulary->image_end, 8196);
    assert_int_equal(vocabulary->image_start, 8197);
    assert_int_equal(vocabulary->end_of_turn, 8710);
    assert_int_equal(vocabulary->new_line, 8803);
    assert_int_equal(vocabulary_size_id(vocabulary, 768), 8828);
    const char prompt[] = "Generate an image of 512x512: \xc3\xa9t\xc3\xa9 \"\\\xc2\xad\"\n";
    assert_int_equal(
        tokenizer_encode(tokenizer, prompt, strlen(prompt), TOKENIZER_PLAIN, &ids, &err),
        STATUS_OK);
    assert_true(ids.n < strlen(prompt));
    assert_int_equal(tokenizer_decode(tokenizer, ids.ids, ids.n, &text, &bytes, &err), STATUS_OK);
    assert_string_equal(text, prompt);
    free(text);
    ids_fini(&ids);
    vocabulary_destroy(vocabulary);
    tokenizer_destroy(tokenizer);
    assert_int_equal(vqgan_checkpoint_open(&codec, test_folder_path(&folder, "tokenizer"), &err),
                     STATUS_OK);
    assert_int_equal(vqgan_checkpoint_config(codec)->n_embed, 8192);
    assert_true(vqgan_checkpoint_has(codec, "decoder.up.4.block.1.conv2.weight"));
    assert_true(vqgan_checkpoint_has(codec, "encoder.down.4.block.0.nin_shortcut.bias"));
    vqgan_checkpoint_close(codec);
    test_folder_remove(&folder);
}

static void shapes(void **state)
{
    (void)state;
    struct model_config c;
    struct error err = {0};
    assert_int_equal(checkpoint_writer_parse_shape(&c, "7b", 2, &err), STATUS_OK);
    assert_int_equal(c.hidden, 4096);
    assert_int_equal(c.n_layers, 2);
    assert_false(c.swin_norm);
    assert_int_equal(checkpoint_writer_parse_shape(&c, "34b", 0, &err), STATUS_OK);
    assert_int_equal(c.n_layers, 48);
    assert_int_equal(c.n_kv_heads, 8);
    assert_int_equal(c.head_dim, 128);
    assert_int_equal(c.model_parallel_size, 4);
    assert_true(c.swin_norm);
    assert_int_equal(
        checkpoint_writer_parse_shape(
            &c, "hidden=1024,inter=2752,layers=16,heads=16,kv_heads=16,vocab=65536,positions=10240",
            0, &err),
        STATUS_OK);
    assert_int_equal(c.max_positions, 10240);
    static const struct {
        const char *shape;
        const char *words[2];
    } wrong[] = {
        {"70b", {"'70b'", "expected 7b, 34b"}},
        {"", {"unknown"}},
        {"hidden=64", {"'inter' is missing"}},
        {"hidden=64,hidden=64", {"'hidden' is given twice"}},
        {"hidden=64,width=3", {"'width'", "KEY=NUMBER"}},
        {"hidden=x", {"'hidden' is 'x'"}},
        {"hidden=-64", {"'hidden' is '-64'"}},
        {"hidden=99999999999999999999", {"'hidden'"}},
        {"hidden=64,inter=176,layers=2,heads=3,kv_heads=3,vocab=10240",
         {"'hidden_size'", "multiple"}},
        {"hidden=64,inter=176,layers=1000000000,heads=4,kv_heads=4,vocab=10240",
         {"'num_hidden_layers'"}},
        {"hidden=64,inter=176,layers=0,heads=4,kv_heads=4,vocab=10240", {"'num_hidden_layers'"}},
        {"hidden=64,inter=176,layers=2,heads=4,kv_heads=4,vocab=9475", {"'vocab' is 9475", "9476"}},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        test_expect_error(wrong[i].shape,
                          checkpoint_writer_parse_shape(&c, wrong[i].shape, 0, &err), &err,
                          STATUS_INVALID, wrong[i].words, 2);
}

/* Mean, deviation and fourth moment of a million numbers, each within four of its own standard
 * errors. */
static void normal_law(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct random_weights *weights;
    float *x = malloc(N * sizeof(*x));
    double mean = 0, square = 0, fourth = 0;
    assert_int_equal(random_weights_create(&weights, NULL), STATUS_OK);
    random_weights_start(weights, 5, "some.weight", 1, 0.5f);
    random_weights_fill_f32(weights, x, N);
    for (int i = 0; i < N; i++) {
        double z = ((double)x[i] - 1) / 0.5;
        mean += z / N;
        square += z * z / N;
        fourth += z * z * z * z / N;
    }
    assert_float_equal(mean, 0, 4.0 / 1024);
    assert_float_equal(square, 1, 4 * sqrt(2.0) / 1024);
    assert_float_equal(fourth, 3, 4 * sqrt(96.0) / 1024);
    random_weights_destroy(weights);
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_and_repeats),
        cmocka_unit_test(tokenizer_and_codec),
        cmocka_unit_test(shapes),
        cmocka_unit_test(normal_law),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
