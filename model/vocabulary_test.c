/*
 * vocabulary_test.c - goal: tokens with a meaning are found by name whatever their ids, and what is
 * missing or doubled is named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/test_support.h"
#include "model/vocabulary.h"

struct fixture {
    struct tokenizer *tokenizer;
    struct vocabulary *vocabulary;
};

static struct fixture open_model(const char *model)
{
    struct fixture f = {.tokenizer = tokenizer_of_model(model)};
    struct error err = {0};
    if (vocabulary_create(&f.vocabulary, f.tokenizer, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return f;
}

static void close_model(struct fixture *f)
{
    vocabulary_destroy(f->vocabulary);
    tokenizer_destroy(f->tokenizer);
}

/* A tokenizer of named tokens alone, ids as listed. */
static struct tokenizer *tokenizer_of_names(const char *const *names, size_t n)
{
    json_t *vocab = json_object();
    for (size_t i = 0; i < n; i++)
        if (names[i])
            json_object_set_new(vocab, names[i], json_integer((json_int_t)i));
    json_t *spec = json_pack("{s:{s:o,s:[]}}", "model", "vocab", vocab, "merges");
    struct error err = {0};
    struct tokenizer *t = tokenizer_of_json(spec, &err);
    if (!t)
        fail_msg("%s", err.text);
    json_decref(spec);
    return t;
}

static const char *const small_names[] = {"<eoss>",
                                          NULL,
                                          "IMGIMGCZ",
                                          "<reserved08802>",
                                          "<reserved08801>",
                                          "<racm3:break>",
                                          "IMGIMGAAAZ",
                                          "<reserved08799>",
                                          "word",
                                          "<s>",
                                          "<reserved08706>",
                                          "IMGIMGBZ",
                                          "IMGIMGZ",
                                          "IMGIMGBKZ",
                                          "xIMGIMGAZ",
                                          "IMGIMGAZx",
                                          "<reserved08804>"};
enum { N_SMALL_NAMES = sizeof(small_names) / sizeof(small_names[0]) };

static void test_names_of_the_golden_vocabulary(void **state)
{
    (void)state;
    struct fixture f = open_model("v7b");
    const struct vocabulary *v = f.vocabulary;
    assert_int_equal(v->bos, 0);
    assert_int_equal(v->pad, 1);
    assert_int_equal(v->image_start, 8197);
    assert_int_equal(v->image_end, 8196);
    assert_int_equal(v->new_line, 8803);
    assert_int_equal(v->end_of_turn, 8710);
    assert_int_equal(v->n_codes, 8192);
    assert_int_equal(v->code_id_min, 4);
    assert_int_equal(v->code_id_max, 8195);
    assert_int_equal(v->code_to_id[123], tokenizer_find(f.tokenizer, "IMGIMGBCDZ"));
    assert_int_equal(vocabulary_code(v, v->code_to_id[123]), 123);
    assert_int_equal(vocabulary_code(v, -5), -1);
    assert_int_equal(vocabulary_code(v, 1 << 30), -1);
    assert_int_equal(vocabulary_size_id(v, 512), 8804 + 16);
    assert_int_equal(vocabulary_size_pixels(v, 8804 + 16), 512);
    assert_int_equal(vocabulary_size_id(v, 0), -1);
    assert_int_equal(vocabulary_size_id(v, 500), -1);
    assert_int_equal(vocabulary_size_id(v, -32), -1);
    assert_int_equal(vocabulary_size_id(v, 32 * (v->n_sizes + 1)), -1);
    assert_int_equal(vocabulary_size_pixels(v, 8804), 0);
    close_model(&f);
}

static void test_other_orders_of_ids(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_names(small_names, N_SMALL_NAMES);
    struct vocabulary *v;
    assert_int_equal(vocabulary_create(&v, t, NULL), STATUS_OK);
    tokenizer_destroy(t);
    assert_int_equal(v->bos, 9);
    assert_int_equal(v->pad, -1);
    assert_int_equal(v->n_codes, 3);
    assert_int_equal(v->code_to_id[0], 6);
    assert_int_equal(v->code_to_id[1], 11);
    assert_int_equal(v->code_to_id[2], 2);
    assert_int_equal(v->code_id_min, 2);
    assert_int_equal(v->code_id_max, 11);
    assert_int_equal(v->n_sizes, 2); /* 08804 does not follow on 08802 */
    assert_int_equal(vocabulary_size_id(v, 32), 4);
    assert_int_equal(vocabulary_size_id(v, 128), -1);
    vocabulary_destroy(v);
}

static void test_missing_and_doubled_names(void **state)
{
    (void)state;
    static const struct {
        int index;
        const char *name, *expected;
    } cases[] = {
        {9, NULL, "no token '<s>' (the start of a conversation)"},
        {5, NULL, "no token '<racm3:break>' (the start of a picture)"},
        {0, NULL, "no token '<eoss>'"},
        {7, NULL, "no token '<reserved08799>'"},
        {10, NULL, "no token '<reserved08706>'"},
        {4, NULL, "no token '<reserved08801>'"},
        {11, NULL, "'IMGIMGCZ' is picture code 2, but there are only 2 codes"},
        {8, "IMGIMGABZ", "'IMGIMGABZ' and 'IMGIMGBZ' are both picture code 1"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *names[N_SMALL_NAMES];
        memcpy(names, small_names, sizeof(names));
        names[cases[i].index] = cases[i].name;
        struct tokenizer *t = tokenizer_of_names(names, N_SMALL_NAMES);
        struct vocabulary *v;
        struct error err = {0};
        assert_int_equal(vocabulary_create(&v, t, &err), STATUS_INVALID);
        assert_null(v);
        if (!strstr(err.text, cases[i].expected))
            fail_msg("'%s', expected '%s'", err.text, cases[i].expected);
        tokenizer_destroy(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_of_the_golden_vocabulary),
        cmocka_unit_test(test_other_orders_of_ids),
        cmocka_unit_test(test_missing_and_doubled_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
