/*
 * text_stream_test.c - goal: pieces put together are the whole text, each piece is whole
 * characters, and nothing waits longer than it must.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/test_support.h"
#include "model/text_buffer.h"
#include "model/text_stream.h"
#include "model/utf8.h"

static void take(struct text_buffer *all, char *piece, size_t bytes)
{
    assert_int_equal(utf8_find_invalid(piece, bytes), bytes);
    assert_int_equal(piece[bytes], 0);
    text_buffer_append(all, piece, bytes, NULL);
    free(piece);
}

static void test_golden_texts_in_pieces(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_model("v7b");
    json_t *root = load_json(golden_path("v7b", "/cases/cases.json"));
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(root, "detokenizer"), i, one)
    {
        struct ids ids = ids_of_json(json_object_get(one, "ids"));
        struct text_stream stream = {0};
        struct text_buffer all = {0};
        char *piece;
        size_t bytes;
        for (size_t k = 0; k < ids.n; k++) {
            assert_int_equal(text_stream_push(&stream, t, ids.ids[k], &piece, &bytes, NULL),
                             STATUS_OK);
            take(&all, piece, bytes);
        }
        assert_int_equal(text_stream_finish(&stream, t, &piece, &bytes, NULL), STATUS_OK);
        take(&all, piece, bytes);
        const json_t *expected = json_object_get(one, "text");
        assert_int_equal(all.n, json_string_length(expected));
        if (all.n)
            assert_memory_equal(all.bytes, json_string_value(expected), all.n);
        text_buffer_fini(&all);
        text_stream_fini(&stream);
        ids_fini(&ids);
    }
    json_decref(root);
    tokenizer_destroy(t);
}

static void test_half_characters_wait(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_model("v7b");
    struct ids ids = {0};
    tokenizer_encode(t, "a\xe5\x8c\x97", 4, TOKENIZER_PLAIN, &ids, NULL);
    assert_int_equal(ids.n, 4); /* one a byte */
    static const char *const expected[] = {"a", "", "", "\xe5\x8c\x97"};
    struct text_stream stream = {0};
    char *piece;
    size_t bytes;
    for (int i = 0; i < 4; i++) {
        text_stream_push(&stream, t, ids.ids[i], &piece, &bytes, NULL);
        assert_string_equal(piece, expected[i]);
        free(piece);
    }
    text_stream_push(&stream, t, ids.ids[1], &piece, &bytes, NULL);
    free(piece);
    assert_int_equal(text_stream_push(&stream, t, -1, &piece, &bytes, NULL), STATUS_INVALID);
    assert_null(piece);
    text_stream_finish(&stream, t, &piece, &bytes, NULL);
    assert_string_equal(piece, "\xef\xbf\xbd");
    free(piece);

    /* Garbage without an end is told at last. */
    size_t told = 0;
    for (int i = 0; i < TEXT_STREAM_HELD_MAX; i++) {
        text_stream_push(&stream, t, ids.ids[1], &piece, &bytes, NULL);
        told += bytes;
        free(piece);
    }
    assert_int_equal(told, 3 * TEXT_STREAM_HELD_MAX);
    text_stream_fini(&stream);
    ids_fini(&ids);
    tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_texts_in_pieces),
        cmocka_unit_test(test_half_characters_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
