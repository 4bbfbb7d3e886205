/*
 * unirep_test.c - goal: the grammar allows exactly the golden pictures and their like; whole
 * pictures are built and read as the reference has them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/test_support.h"
#include "model/unirep.h"

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

static void test_golden_pictures_there_and_back(void **state)
{
    (void)state;
    for (int m = 0; m < N_GOLDEN_MODELS; m++) {
        struct fixture f = open_model(golden_models[m]);
        json_t *root = load_json(golden_path(golden_models[m], "/cases/cases.json"));
        size_t i;
        json_t *one;
        json_array_foreach(json_object_get(root, "images"), i, one)
        {
            struct ids tokens = ids_of_json(json_object_get(one, "tokens"));
            struct ids codes = {0};
            struct ids built = {0};
            struct picture_size size;
            size_t n_used;
            assert_int_equal(
                unirep_parse(f.vocabulary, tokens.ids, tokens.n, &size, &codes, &n_used, NULL),
                STATUS_OK);
            assert_int_equal(n_used, tokens.n);
            assert_true(ids_equal_json(&codes, json_object_get(one, "codes")));
            const json_t *crop = json_object_get(one, "crop_size");
            assert_int_equal(size.width, json_integer_value(json_array_get(crop, 0)));
            assert_int_equal(size.height, json_integer_value(json_array_get(crop, 1)));
            assert_int_equal(unirep_length(size), tokens.n);
            assert_int_equal(unirep_n_codes(size), codes.n);
            assert_int_equal(unirep_build(f.vocabulary, size, codes.ids, &built, NULL), STATUS_OK);
            assert_true(ids_equal_json(&built, json_object_get(one, "tokens")));
            ids_fini(&built);
            ids_fini(&codes);
            ids_fini(&tokens);
        }
        json_decref(root);
        close_model(&f);
    }
}

static void test_published_lengths(void **state)
{
    (void)state;
    assert_int_equal(unirep_length((struct picture_size){512, 512}), 1060);
    assert_int_equal(unirep_length((struct picture_size){768, 768}), 2356);
    assert_int_equal(unirep_length((struct picture_size){1024, 1024}), 4164);
    assert_int_equal(unirep_length((struct picture_size){32, 32}), UNIREP_TOKENS_MIN);
}

/* Follows a picture of 64x32 (width, height) token by token; at each place every wrong token is
 * refused. */
static void test_the_machine_step_by_step(void **state)
{
    (void)state;
    struct fixture f = open_model("v34b");
    const struct vocabulary *v = f.vocabulary;
    struct unirep u;
    unirep_init(&u, v);
    assert_int_equal(unirep_push(&u, v->image_end, NULL), STATUS_OK); /* text like any other */
    assert_int_equal(unirep_push(&u, v->new_line, NULL), STATUS_OK);
    assert_int_equal(unirep_next(&u), UNIREP_TEXT);
    assert_int_equal(unirep_forced(&u), -1);
    assert_int_equal(unirep_tokens_left(&u), 0);
    assert_true(unirep_may_open(&u, 10));
    assert_false(unirep_may_open(&u, 9));

    assert_int_equal(unirep_push(&u, v->image_start, NULL), STATUS_OK);
    assert_int_equal(unirep_next(&u), UNIREP_HEIGHT);
    assert_false(unirep_may_open(&u, 1000));
    assert_int_equal(unirep_tokens_left(&u), -1);
    assert_int_equal(unirep_push(&u, v->image_start, NULL), STATUS_INVALID);
    assert_int_equal(unirep_push(&u, v->code_to_id[0], NULL), STATUS_INVALID);
    assert_int_equal(unirep_push(&u, 8804, NULL), STATUS_INVALID); /* the size 0 */
    assert_int_equal(unirep_push(&u, vocabulary_size_id(v, 32), NULL), STATUS_OK);
    assert_int_equal(unirep_next(&u), UNIREP_WIDTH);
    assert_int_equal(unirep_push(&u, vocabulary_size_id(v, 64), NULL), STATUS_OK);
    assert_int_equal(u.height, 32);
    assert_int_equal(u.width, 64);
    assert_int_equal(u.n_picture_tokens, 3);
    for (int row = 0; row < 2; row++) {
        for (int column = 0; column < 4; column++) {
            assert_int_equal(unirep_next(&u), UNIREP_CODE);
            assert_int_equal(unirep_forced(&u), -1);
            assert_int_equal(unirep_push(&u, v->new_line, NULL), STATUS_INVALID);
            assert_int_equal(unirep_push(&u, v->image_end, NULL), STATUS_INVALID);
            assert_int_equal(unirep_push(&u, v->code_to_id[row + column], NULL), STATUS_OK);
        }
        assert_int_equal(unirep_next(&u), UNIREP_FORCED);
        assert_int_equal(unirep_forced(&u), v->new_line);
        assert_int_equal(unirep_push(&u, v->code_to_id[0], NULL), STATUS_INVALID);
        assert_int_equal(unirep_push(&u, v->image_end, NULL), STATUS_INVALID);
        assert_int_equal(unirep_push(&u, v->new_line, NULL), STATUS_OK);
    }
    assert_int_equal(unirep_tokens_left(&u), 1);
    assert_int_equal(unirep_forced(&u), v->image_end);
    struct unirep saved = u;
    struct error err;
    assert_int_equal(unirep_push(&u, v->new_line, &err), STATUS_INVALID);
    assert_string_equal(err.text, "token 8803 in a picture, expected 8196 (its end)");
    assert_memory_equal(&u, &saved, sizeof(u));
    assert_int_equal(unirep_push(&u, v->image_end, NULL), STATUS_OK);
    assert_int_equal(unirep_next(&u), UNIREP_TEXT);
    assert_int_equal(u.n_pictures, 1);
    assert_int_equal(u.n_picture_tokens, 0);
    close_model(&f);
}

/* Whatever is listed can be finished in the room there is, and the next larger one cannot. */
static void test_listed_sizes_fit(void **state)
{
    (void)state;
    struct fixture f = open_model("v7b");
    const struct vocabulary *v = f.vocabulary;
    int32_t *list = calloc((size_t)v->n_sizes, sizeof(*list));
    for (int64_t n_left = 0; n_left < 3000; n_left += 7) {
        struct unirep u;
        unirep_init(&u, v);
        assert_int_equal(unirep_list_sizes(&u, n_left, 0, list), 0);
        unirep_push(&u, v->image_start, NULL);
        int n = unirep_list_sizes(&u, n_left, 0, list);
        assert_int_equal(n == 0, n_left < UNIREP_TOKENS_MIN - 1);
        for (int i = 0; i < n; i++) {
            struct unirep open = u;
            int32_t *widths = calloc((size_t)v->n_sizes, sizeof(*widths));
            assert_int_equal(unirep_push(&open, list[i], NULL), STATUS_OK);
            int n_widths = unirep_list_sizes(&open, n_left - 1, 0, widths);
            assert_true(n_widths >= 1);
            assert_int_equal(unirep_push(&open, widths[n_widths - 1], NULL), STATUS_OK);
            assert_true(unirep_tokens_left(&open) <= n_left - 2);
            struct picture_size wider = {open.width + 32, open.height};
            assert_true(unirep_length(wider) - 1 > n_left || n_widths == v->n_sizes);
            free(widths);
        }
        int n_limited = unirep_list_sizes(&u, n_left, 96, list);
        assert_true(n_limited <= 3);
        assert_int_equal(n_limited, n < 3 ? n : 3);
    }
    free(list);
    close_model(&f);
}

static void test_bad_pictures(void **state)
{
    (void)state;
    struct fixture f = open_model("v7b");
    const struct vocabulary *v = f.vocabulary;
    struct error err;
    struct ids out = {0};
    int32_t codes[4] = {1, 2, 3, 8192};
    struct picture_size size = {32, 32};
    assert_int_equal(unirep_build(v, size, codes, &out, &err), STATUS_INVALID);
    assert_string_equal(err.text, "picture code 8192 at place 3, expected 0 to 8191");
    assert_int_equal(out.n, 0);
    codes[3] = -1;
    assert_int_equal(unirep_build(v, size, codes, &out, &err), STATUS_INVALID);
    size.height = 48;
    assert_int_equal(unirep_build(v, size, codes, &out, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "height must be a multiple of 32 from 32 to"));
    size.height = 32 * (v->n_sizes + 1);
    assert_int_equal(unirep_check_size(v, size, &err), STATUS_INVALID);

    size.height = 32;
    codes[3] = 4;
    assert_int_equal(unirep_build(v, size, codes, &out, NULL), STATUS_OK);
    assert_int_equal(out.n, UNIREP_TOKENS_MIN);
    struct ids found = {0};
    for (size_t n = 0; n < out.n; n++) {
        enum status st = unirep_parse(v, out.ids, n, &size, &found, NULL, &err);
        assert_int_equal(st, n == 0 ? STATUS_NOT_FOUND : STATUS_INVALID);
        assert_int_equal(found.n, 0);
    }
    for (size_t i = 0; i < out.n; i++) {
        int32_t right = out.ids[i];
        out.ids[i] = i == 0 ? 9999999 : -1;
        assert_int_not_equal(unirep_parse(v, out.ids, out.n, &size, &found, NULL, &err), STATUS_OK);
        out.ids[i] = right;
    }
    ids_fini(&found);
    ids_fini(&out);
    close_model(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_pictures_there_and_back),
        cmocka_unit_test(test_published_lengths),
        cmocka_unit_test(test_the_machine_step_by_step),
        cmocka_unit_test(test_listed_sizes_fit),
        cmocka_unit_test(test_bad_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
