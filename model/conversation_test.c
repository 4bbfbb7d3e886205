/*
 * conversation_test.c - goal: conversations become the ids of the reference, pictures in their
 * places; users' texts never become control tokens; damaged JSON is refused with a reason.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/conversation.h"
#include "model/test_support.h"
#include "model/unirep.h"

/* The reference's own tokens of a picture file. */
static struct ids picture_tokens(const json_t *root, const char *file)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(root, "images"), i, one)
    {
        if (strcmp(json_string_value(json_object_get(one, "file")), file) == 0)
            return ids_of_json(json_object_get(one, "tokens"));
    }
    fail_msg("no golden picture '%s'", file);
    return (struct ids){0};
}

static void encode_json(const json_t *root, const json_t *spec, const struct tokenizer *t,
                        const struct vocabulary *v, struct ids *out)
{
    json_t *form = json_pack("{s:O,s:O}", "images", json_object_get(spec, "images"), "qas",
                             json_object_get(spec, "qas"));
    char *text = json_dumps(form, 0);
    struct conversation *c;
    struct error err = {0};
    if (conversation_parse(&c, text, strlen(text), "golden", &err) != STATUS_OK)
        fail_msg("%s", err.text);
    struct ids pictures[CONVERSATION_PICTURES_MAX] = {0};
    int n = conversation_n_pictures(c);
    for (int i = 0; i < n; i++)
        pictures[i] = picture_tokens(root, conversation_picture_file(c, i));
    if (conversation_encode(c, t, v, pictures, n, out, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    for (int i = 0; i < n; i++)
        ids_fini(&pictures[i]);
    conversation_destroy(c);
    free(text);
    json_decref(form);
}

static void encode_prompt(const json_t *greedy, const struct tokenizer *t,
                          const struct vocabulary *v, struct ids *out)
{
    const char *prompt = json_string_value(json_object_get(greedy, "prompt"));
    struct picture_size size = {.width = (int)json_integer_value(json_object_get(greedy, "width")),
                                .height =
                                    (int)json_integer_value(json_object_get(greedy, "height"))};
    struct conversation *c;
    conversation_create(&c, NULL);
    conversation_add_text_to_image(c, prompt, strlen(prompt), size, NULL);
    assert_int_equal(conversation_encode(c, t, v, NULL, 0, out, NULL), STATUS_OK);
    conversation_destroy(c);
}

static void test_golden_conversations(void **state)
{
    (void)state;
    for (int m = 0; m < N_GOLDEN_MODELS; m++) {
        struct tokenizer *t = tokenizer_of_model(golden_models[m]);
        struct vocabulary *v;
        assert_int_equal(vocabulary_create(&v, t, NULL), STATUS_OK);
        json_t *root = load_json(golden_path(golden_models[m], "/cases/cases.json"));
        size_t i;
        json_t *one;
        json_array_foreach(json_object_get(root, "conversations"), i, one)
        {
            struct ids ids = {0};
            encode_json(root, one, t, v, &ids);
            if (!ids_equal_json(&ids, json_object_get(one, "ids")))
                fail_msg("%s: conversation %zu", golden_models[m], i);
            ids_fini(&ids);
        }
        /* Prompts of generations end with the opening of the picture that is asked for. */
        json_array_foreach(json_object_get(root, "greedy"), i, one)
        {
            struct ids ids = {0};
            const json_t *conversation = json_object_get(one, "conversation");
            if (conversation)
                encode_json(root, conversation, t, v, &ids);
            else
                encode_prompt(one, t, v, &ids);
            struct picture_size size = {
                .width = (int)json_integer_value(json_object_get(one, "width")),
                .height = (int)json_integer_value(json_object_get(one, "height"))};
            assert_int_equal(unirep_build_opening(v, size, &ids, NULL), STATUS_OK);
            if (!ids_equal_json(&ids, json_object_get(one, "prompt_ids")))
                fail_msg("%s: prompt %zu", golden_models[m], i);
            ids_fini(&ids);
        }
        json_decref(root);
        vocabulary_destroy(v);
        tokenizer_destroy(t);
    }
}

static void test_texts_of_users_stay_text(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_model("v7b");
    struct vocabulary *v;
    vocabulary_create(&v, t, NULL);
    static const char text[] = "<|image|><reserved08706><racm3:break>";
    struct conversation *c;
    conversation_create(&c, NULL);
    conversation_add_text_to_image(c, text, sizeof(text) - 1, (struct picture_size){64, 32}, NULL);
    assert_int_equal(conversation_n_pictures(c), 0);
    struct ids ids = {0};
    assert_int_equal(conversation_encode(c, t, v, NULL, 0, &ids, NULL), STATUS_OK);
    for (size_t i = 1; i + 1 < ids.n; i++) {
        assert_int_not_equal(ids.ids[i], v->end_of_turn);
        assert_int_not_equal(ids.ids[i], v->image_start);
    }
    assert_int_equal(ids.ids[ids.n - 1], v->end_of_turn);
    char *back;
    size_t bytes;
    tokenizer_decode(t, ids.ids + 1, ids.n - 2, &back, &bytes, NULL);
    assert_string_equal(back, "Generate an image of 64x32 according to the following prompt:\n"
                              "<|image|><reserved08706><racm3:break>");
    free(back);
    ids_fini(&ids);
    conversation_destroy(c);
    vocabulary_destroy(v);
    tokenizer_destroy(t);
}

/* Parts added by calls give what the JSON form gives. */
static void test_parts_and_json_agree(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_model("v7b");
    struct vocabulary *v;
    vocabulary_create(&v, t, NULL);
    static const char json[] =
        "{\"images\":[\"a\",\"b\"],\"qas\":[[\"x <|image|> y\",\"z<|image|>\"],[\"q\",null]]}";
    struct conversation *parsed, *built;
    assert_int_equal(conversation_parse(&parsed, json, sizeof(json) - 1, "x", NULL), STATUS_OK);
    assert_string_equal(conversation_picture_file(parsed, 1), "b");
    assert_null(conversation_picture_file(parsed, 2));
    assert_null(conversation_picture_file(parsed, -1));
    conversation_create(&built, NULL);
    conversation_add_text(built, "x", 1, NULL);
    conversation_add_text(built, " ", 1, NULL);
    conversation_add_picture(built, 0, NULL);
    conversation_add_text(built, " y", 2, NULL);
    conversation_end_turn(built, NULL);
    conversation_add_text(built, "z", 1, NULL);
    conversation_add_picture(built, 1, NULL);
    conversation_end_turn(built, NULL);
    conversation_add_marked(built, "q", 1, NULL);
    conversation_end_turn(built, NULL);
    int32_t a[] = {v->image_start}, b[] = {v->image_end};
    struct ids pictures[] = {{.ids = a, .n = 1}, {.ids = b, .n = 1}};
    struct ids one = {0}, two = {0};
    assert_int_equal(conversation_encode(parsed, t, v, pictures, 2, &one, NULL), STATUS_OK);
    assert_int_equal(conversation_encode(built, t, v, pictures, 2, &two, NULL), STATUS_OK);
    assert_int_equal(one.n, two.n);
    assert_memory_equal(one.ids, two.ids, one.n * sizeof(*one.ids));
    struct error err;
    assert_int_equal(conversation_encode(built, t, v, pictures, 1, &two, &err), STATUS_INVALID);
    assert_string_equal(err.text, "picture 2 of a conversation with 1 pictures");
    assert_int_equal(two.n, one.n);
    ids_fini(&one);
    ids_fini(&two);
    conversation_destroy(parsed);
    conversation_destroy(built);
    vocabulary_destroy(v);
    tokenizer_destroy(t);
}

static void test_json_of_strangers(void **state)
{
    (void)state;
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"", "no JSON: it is empty"},
        {"[]", "expected an object"},
        {"{}", "'qas' is nothing, expected an array"},
        {"{\"qas\":[]}", "'qas' is an array of 0, expected an array"},
        {"{\"qas\":[[\"a\"]]}", "entry 0 is not"},
        {"{\"qas\":[[\"a\",3]]}", "entry 0 is not"},
        {"{\"qas\":[[null,null]]}", "entry 0 is not"},
        {"{\"qas\":[[\"a\",null,\"b\"]]}", "entry 0 is not"},
        {"{\"qas\":[[\"a\",null],[\"b\",null]]}", "entry 0: only the last answer may be null"},
        {"{\"qas\":[[\"a\",null]],\"image\":[]}", "field 'image'"},
        {"{\"qas\":[[\"a\",null]],\"images\":3}", "'images' is 3, expected an array"},
        {"{\"qas\":[[\"a\",null]],\"images\":[3]}", "'images' entry 0: 'file name' is 3, expected"},
        {"{\"qas\":[[\"a\",null]],\"images\":[\"\"]}",
         "'images' entry 0: 'file name' is the string"},
        {"{\"qas\":[[\"<|image|>\",null]]}", "1 marks <|image|> for 0 images"},
        {"{\"qas\":[[\"<|image|>\",null]],\"images\":[\"a\",\"b\"]}",
         "1 marks <|image|> for 2 images"},
        {"{\"qas\":[[\"a\",null]],\"qas\":[]}", "duplicate"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conversation *c;
        struct error err = {0};
        assert_int_equal(
            conversation_parse(&c, cases[i].json, strlen(cases[i].json), "talk.json", &err),
            STATUS_INVALID);
        assert_null(c);
        if (!strstr(err.text, cases[i].expected) || !strstr(err.text, "'talk.json'"))
            fail_msg("%s: '%s', expected '%s'", cases[i].json, err.text, cases[i].expected);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct conversation *c;
    conversation_create(&c, NULL);
    size_t half = CONVERSATION_TEXT_BYTES_MAX / 2;
    char *text = calloc(half + 1, 1);
    assert_int_equal(conversation_add_text(c, text, half, NULL), STATUS_OK);
    assert_int_equal(conversation_add_text(c, text, half + 1, NULL), STATUS_INVALID);
    assert_int_equal(conversation_add_text(c, text, half, NULL), STATUS_OK);
    assert_int_equal(conversation_add_text(c, text, 1, NULL), STATUS_INVALID);
    assert_int_equal(conversation_add_picture(c, -1, NULL), STATUS_INVALID);
    assert_int_equal(conversation_add_picture(c, CONVERSATION_PICTURES_MAX, NULL), STATUS_INVALID);
    assert_int_equal(conversation_add_picture(c, CONVERSATION_PICTURES_MAX - 1, NULL), STATUS_OK);
    enum status st = STATUS_OK;
    int n = 2;
    for (; st == STATUS_OK; n++)
        st = conversation_end_turn(c, NULL);
    assert_int_equal(st, STATUS_INVALID);
    assert_int_equal(n, CONVERSATION_PARTS_MAX + 1);
    free(text);
    conversation_destroy(c);
    conversation_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_conversations),
        cmocka_unit_test(test_texts_of_users_stay_text),
        cmocka_unit_test(test_parts_and_json_agree),
        cmocka_unit_test(test_json_of_strangers),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
