/*
 * tokenizer_test.c - goal: text becomes the ids that HF tokenizers gives, and back, for the golden
 * checkpoints and for 105 other tokenizers; files and texts of strangers are refused with a reason
 * or handled in bounded time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "model/test_support.h"

static void test_golden_texts(void **state)
{
    (void)state;
    for (int m = 0; m < N_GOLDEN_MODELS; m++) {
        struct tokenizer *t = tokenizer_of_model(golden_models[m]);
        json_t *root = load_json(golden_path(golden_models[m], "/cases/cases.json"));
        size_t i;
        json_t *one;
        json_array_foreach(json_object_get(root, "tokenizer"), i, one)
        {
            const json_t *text = json_object_get(one, "text");
            struct ids ids = {0};
            assert_int_equal(tokenizer_encode(t, json_string_value(text), json_string_length(text),
                                              TOKENIZER_ADDED, &ids, NULL),
                             STATUS_OK);
            if (!ids_equal_json(&ids, json_object_get(one, "ids")))
                fail_msg("%s: text %zu", golden_models[m], i);
            ids_fini(&ids);
        }
        json_array_foreach(json_object_get(root, "detokenizer"), i, one)
        {
            const json_t *expected = json_object_get(one, "text");
            struct ids ids = ids_of_json(json_object_get(one, "ids"));
            char *text;
            size_t bytes;
            assert_int_equal(tokenizer_decode(t, ids.ids, ids.n, &text, &bytes, NULL), STATUS_OK);
            assert_int_equal(bytes, json_string_length(expected));
            assert_memory_equal(text, json_string_value(expected), bytes + 1);
            free(text);
            ids_fini(&ids);
        }
        json_decref(root);
        tokenizer_destroy(t);
    }
}

/* base.json with the changes of a case: whole fields, and single fields of "model". */
static json_t *changed(const json_t *base, const json_t *changes)
{
    json_t *spec = json_deep_copy(base);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)changes, key, value)
    {
        if (strcmp(key, "model") == 0)
            json_object_update(json_object_get(spec, "model"), value);
        else
            json_object_set(spec, key, value);
    }
    return spec;
}

static void test_other_tokenizers(void **state)
{
    (void)state;
    json_t *base = load_json(GOLDEN "tokenizers/base.json");
    json_t *root = load_json(GOLDEN "tokenizers/cases.json");
    const json_t *texts = json_object_get(root, "texts");
    size_t i, k;
    json_t *one, *text;
    json_array_foreach(json_object_get(root, "cases"), i, one)
    {
        struct error err = {0};
        json_t *spec = changed(base, json_object_get(one, "changes"));
        struct tokenizer *t = tokenizer_of_json(spec, &err);
        const char *name = json_string_value(json_object_get(one, "name"));
        if (!t)
            fail_msg("%s: %s", name, err.text);
        json_array_foreach(texts, k, text)
        {
            struct ids ids = {0};
            tokenizer_encode(t, json_string_value(text), json_string_length(text), TOKENIZER_ADDED,
                             &ids, &err);
            if (!ids_equal_json(&ids, json_array_get(json_object_get(one, "ids"), k)))
                fail_msg("%s: text %zu", name, k);
            ids_fini(&ids);
        }
        tokenizer_destroy(t);
        json_decref(spec);
    }
    json_decref(root);
    json_decref(base);
}

static void test_control_tokens_typed_as_text_stay_text(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_model("v7b");
    const char text[] = "<racm3:break><reserved08706><s><eoss>";
    struct ids ids = {0};
    assert_int_equal(tokenizer_encode(t, text, sizeof(text) - 1, TOKENIZER_ADDED, &ids, NULL),
                     STATUS_OK);
    assert_int_equal(ids.n, 4);
    assert_int_equal(ids.ids[0], tokenizer_find(t, "<racm3:break>"));
    ids.n = 0;
    assert_int_equal(tokenizer_encode(t, text, sizeof(text) - 1, TOKENIZER_PLAIN, &ids, NULL),
                     STATUS_OK);
    assert_true(ids.n > 10);
    for (size_t i = 0; i < ids.n; i++)
        assert_false(tokenizer_name(t, ids.ids[i])[0] == '<' && tokenizer_name(t, ids.ids[i])[1]);
    char *back;
    size_t bytes;
    tokenizer_decode(t, ids.ids, ids.n, &back, &bytes, NULL);
    assert_string_equal(back, text);
    free(back);
    ids_fini(&ids);
    tokenizer_destroy(t);
}

static void test_texts_of_strangers(void **state)
{
    (void)state;
    struct tokenizer *t = tokenizer_of_model("v7b");
    struct error err;
    struct ids ids = {0};
    ids_push(&ids, 7, NULL);

    static const char *const bad[] = {
        "a\xff", "a\xc3", "a\xc0\x80", "a\xed\xa0\x80", "a\xf4\x90\x80\x80", "a\x80"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(tokenizer_encode(t, bad[i], strlen(bad[i]), TOKENIZER_PLAIN, &ids, &err),
                         STATUS_INVALID);
        assert_non_null(strstr(err.text, "no UTF-8"));
        assert_non_null(strstr(err.text, "at 1"));
        assert_int_equal(ids.n, 1);
    }
    assert_int_equal(tokenizer_encode(t, "a\0b", 3, TOKENIZER_PLAIN, &ids, &err), STATUS_OK);
    assert_int_equal(ids.n, 4);

    size_t limit = TOKENIZER_TEXT_BYTES_MAX;
    char *longest = malloc(limit + 1);
    memset(longest, 'a', limit + 1);
    assert_int_equal(tokenizer_encode(t, longest, limit + 1, TOKENIZER_PLAIN, &ids, &err),
                     STATUS_INVALID);
    assert_non_null(strstr(err.text, "4194305 bytes, expected at most 4194304"));
    assert_int_equal(ids.n, 4);

    int32_t wrong[] = {5, 10240};
    char *text;
    size_t bytes;
    assert_int_equal(tokenizer_decode(t, wrong, 2, &text, &bytes, &err), STATUS_INVALID);
    assert_string_equal(err.text, "id 10240 at place 1, expected 0 to 10239");
    wrong[1] = -1;
    assert_int_equal(tokenizer_decode(t, wrong, 2, &text, &bytes, &err), STATUS_INVALID);
    free(longest);
    ids_fini(&ids);
    tokenizer_destroy(t);
}

/* Each text would take minutes if a step were quadratic in its length; the limit leaves room for
 * slow machines. */
static void test_a_megabyte_takes_bounded_time(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20, LIMIT_MS = 15000 };
    static const char *const units[] = {"a",         "the ",         " ",        ".",
                                        "1",         "\t",           "<",        "<reserved0870",
                                        "IMGIMGABC", "\xe5\x8c\x97", "\xc2\xa0", "'s"};
    struct tokenizer *t = tokenizer_of_model("v7b");
    char *text = malloc(BYTES);
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        size_t unit = strlen(units[i]);
        size_t n = BYTES / unit * unit;
        for (size_t k = 0; k < n; k += unit)
            memcpy(text + k, units[i], unit);
        int64_t start = clock_monotonic_ms();
        struct ids ids = {0};
        assert_int_equal(tokenizer_encode(t, text, n, TOKENIZER_ADDED, &ids, NULL), STATUS_OK);
        assert_true(clock_monotonic_ms() - start < LIMIT_MS);
        char *back;
        size_t bytes;
        assert_int_equal(tokenizer_decode(t, ids.ids, ids.n, &back, &bytes, NULL), STATUS_OK);
        assert_int_equal(bytes, n);
        assert_memory_equal(back, text, n);
        free(back);
        ids_fini(&ids);
    }
    free(text);
    tokenizer_destroy(t);
}

static const struct {
    const char *json, *expected;
} bad_files[] = {
    {"{", "line 1"},
    {"", "no JSON: it is empty"},
    {"\xef\xbb\xbf{}", "byte order mark"},
    {"[]", "an array of 0, expected an object"},
    {"{}", "'model' is nothing, expected an object"},
    {"{\"model\":{\"vocab\":[],\"merges\":[]}}",
     "'model.vocab' is an array of 0, expected an object"},
    {"{\"model\":{\"vocab\":{},\"merges\":[]}}", "the vocabulary is empty"},
    {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0},\"merges\":[]}}",
     "'Unigram' is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":{}}}", "'merges' is an object, expected an array"},
    {"{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "duplicate"},
    {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "id 0 is that of 'a' and of 'b'"},
    {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "the id of 'a' is -1, expected 0 to"},
    {"{\"model\":{\"vocab\":{\"a\":1048576},\"merges\":[]}}", "the id of 'a' is 1048576"},
    {"{\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}",
     "the id of 'a' is 1.5, expected an integer"},
    {"{\"model\":{\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}", "too big integer"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a x\"]}}", "merge 0: part 'x' is not in"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\"]]}}",
     "merge 0: result 'aa' is not in"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}",
     "merge 0: the string 'aa', expected \"a b\""},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a a\"]}}",
     "merge 0: the string 'a a a', expected"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",3]]}}",
     "merge 0: an array of 2, expected"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[3]}}", "merge 0: 3, expected"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1}}",
     "'dropout' is 0.1, expected null or 0"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":\"0.1\"}}",
     "'dropout' is the string '0.1', expected null or 0"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"u\"}}",
     "unk_token 'u' is not in"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"fuse_unk\":1}}",
     "'fuse_unk' is 1, expected true or false"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"byte_fallback\":true,\"end_of_word_"
     "suffix\":\"x\"}}",
     "is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"normalizer\":{\"type\":\"NFC\"}}",
     "normalizer: type 'NFC' is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":\"Metaspace\"}"
     "}",
     "pre_tokenizer: type 'Metaspace' is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{}}",
     "'type' is nothing, expected a string"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":"
     "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}}",
     "regex '('"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":"
     "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Other\"}}",
     "behavior 'Other', expected Removed"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":"
     "{\"type\":\"Split\",\"pattern\":\"a\",\"behavior\":\"Isolated\"}}",
     "'Split.pattern' is the string 'a', expected {"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"decoder\":{\"type\":\"WordPiece\"}}",
     "decoder: type 'WordPiece' is not supported"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":1}]}",
     "entry 0: 'content' is nothing, expected a string"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":0,\"content\":"
     "\"b\"}]}",
     "id 0 is that of 'a' and of 'b'"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":[{\"id\":1,\"content\":"
     "\"a\"}]}",
     "'a' has id 1 here and 0 before"},
    {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":"
     "[{\"id\":1,\"content\":\"b\",\"lstrip\":3}]}",
     "'b': 'lstrip' is 3, expected true or false"},
};

static void test_files_of_strangers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad_files) / sizeof(bad_files[0]); i++) {
        struct tokenizer *t;
        struct error err = {0};
        enum status st =
            tokenizer_create(&t, bad_files[i].json, strlen(bad_files[i].json), "x.json", &err);
        if (st == STATUS_OK || t || !strstr(err.text, bad_files[i].expected) ||
            !strstr(err.text, "'x.json'"))
            fail_msg("%s: status %s, '%s', expected '%s'", bad_files[i].json, status_name(st),
                     err.text, bad_files[i].expected);
    }
    struct tokenizer *t;
    struct error err;
    assert_int_equal(tokenizer_open(&t, "/nowhere/tokenizer.json", &err), STATUS_NOT_FOUND);
}

static void test_deep_nesting_is_refused(void **state)
{
    (void)state;
    json_t *spec = json_pack("{s:{s:{s:i},s:[]}}", "model", "vocab", "a", 0, "merges");
    json_t *inner = json_null();
    for (int i = 0; i < 40; i++)
        inner = json_pack("{s:s,s:[o]}", "type", "Sequence", "pretokenizers", inner);
    json_object_set_new(spec, "pre_tokenizer", inner);
    struct error err = {0};
    assert_null(tokenizer_of_json(spec, &err));
    assert_non_null(strstr(err.text, "nested more than 16 deep"));
    json_decref(spec);

    char *brackets = malloc(100001);
    memset(brackets, '[', 100000);
    brackets[100000] = 0;
    struct tokenizer *t;
    assert_int_equal(tokenizer_create(&t, brackets, 100000, "x", &err), STATUS_INVALID);
    free(brackets);
}

static struct tokenizer *with_regex(const char *regex, struct error *err)
{
    json_t *spec = json_pack("{s:{s:{s:i,s:i},s:[]},s:{s:s,s:{s:s},s:s,s:b}}", "model", "vocab",
                             "a", 0, "b", 1, "merges", "pre_tokenizer", "type", "Split", "pattern",
                             "Regex", regex, "behavior", "Isolated", "invert", 0);
    struct tokenizer *t = tokenizer_of_json(spec, err);
    json_decref(spec);
    return t;
}

static void test_a_regex_that_backtracks_for_ever_is_stopped(void **state)
{
    (void)state;
    static const char *const regexes[] = {"(a+)+$", "(a|aa)+$", "(a*)*b", "(?:a|a)*c",
                                          "(.*)(.*)(.*)(.*)x"};
    enum { BYTES = 4000, LIMIT_MS = 60000 };
    char text[BYTES];
    memset(text, 'a', BYTES);
    text[BYTES - 1] = 'b';
    for (size_t i = 0; i < sizeof(regexes) / sizeof(regexes[0]); i++) {
        struct error err = {0};
        struct tokenizer *t = with_regex(regexes[i], &err);
        if (!t)
            fail_msg("%s", err.text);
        struct ids ids = {0};
        int64_t start = clock_monotonic_ms();
        enum status st = tokenizer_encode(t, text, BYTES, TOKENIZER_PLAIN, &ids, &err);
        assert_true(clock_monotonic_ms() - start < LIMIT_MS);
        if (st != STATUS_OK) {
            assert_int_equal(st, STATUS_INVALID);
            assert_int_equal(ids.n, 0);
            assert_non_null(strstr(err.text, "needs more than"));
        }
        if (i == 0)
            assert_int_equal(st, STATUS_INVALID);
        ids_fini(&ids);
        tokenizer_destroy(t);
    }
}

/* Backtracking that ends is no offence: this pattern of Llama 3 goes back over all spaces once. */
static void test_long_runs_pass_usual_regexes(void **state)
{
    (void)state;
    enum { BYTES = TOKENIZER_TEXT_BYTES_MAX };
    struct error err = {0};
    struct tokenizer *t = with_regex("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+|\\p{L}+", &err);
    char *text = malloc(BYTES);
    memset(text, ' ', BYTES);
    text[BYTES - 1] = 'a';
    struct ids ids = {0};
    if (tokenizer_encode(t, text, BYTES, TOKENIZER_PLAIN, &ids, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    assert_int_equal(ids.n, 1); /* spaces have no token there and are left out */
    ids_fini(&ids);
    free(text);
    tokenizer_destroy(t);
}

/* As large as the published one: 65,536 names, 55,000 merges. */
static json_t *large_spec(void)
{
    enum { N_IDS = 65536, N_LETTERS = 62 };
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    json_t *vocab = json_object();
    json_t *merges = json_array();
    int id = 0;
    for (int i = 0; i < N_LETTERS; i++)
        json_object_set_new(vocab, (char[]){letters[i], 0}, json_integer(id++));
    for (int i = 0; i < N_LETTERS; i++)
        for (int k = 0; k < N_LETTERS; k++) {
            json_object_set_new(vocab, (char[]){letters[i], letters[k], 0}, json_integer(id++));
            json_array_append_new(merges, json_sprintf("%c %c", letters[i], letters[k]));
        }
    for (int i = 0; id < N_IDS; i++) {
        char name[] = {letters[i % N_LETTERS], letters[i / N_LETTERS % N_LETTERS],
                       letters[i / N_LETTERS / N_LETTERS], 0};
        json_object_set_new(vocab, name, json_integer(id++));
        json_array_append_new(merges, json_sprintf("%c %s", name[0], name + 1));
    }
    return json_pack("{s:{s:o,s:o}}", "model", "vocab", vocab, "merges", merges);
}

static void test_a_large_file_loads_in_under_a_second(void **state)
{
    (void)state;
    json_t *spec = large_spec();
    char *text = json_dumps(spec, 0);
    struct tokenizer *t;
    struct error err = {0};
    int64_t start = clock_process_cpu_ns();
    enum status st = tokenizer_create(&t, text, strlen(text), "large", &err);
    double s = (double)(clock_process_cpu_ns() - start) / 1e9;
    if (st != STATUS_OK)
        fail_msg("%s", err.text);
    print_message("65,536 ids in %.3f s of CPU time\n", s);
#ifndef __SANITIZE_ADDRESS__
    assert_true(s < 1.0);
#endif
    assert_int_equal(tokenizer_n_ids(t), 65536);
    assert_int_equal(tokenizer_find(t, "ba"), 62 + 62);
    tokenizer_destroy(t);
    free(text);
    json_decref(spec);
}

static void test_a_cut_file_never_crashes(void **state)
{
    (void)state;
    json_t *base = load_json(GOLDEN "tokenizers/base.json");
    char *text = json_dumps(base, 0);
    size_t bytes = strlen(text);
    for (size_t n = 0; n < bytes; n += 97) {
        struct tokenizer *t;
        assert_int_equal(tokenizer_create(&t, text, n, "cut", NULL), STATUS_INVALID);
        assert_null(t);
    }
    free(text);
    json_decref(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_texts),
        cmocka_unit_test(test_other_tokenizers),
        cmocka_unit_test(test_control_tokens_typed_as_text_stay_text),
        cmocka_unit_test(test_texts_of_strangers),
        cmocka_unit_test(test_a_megabyte_takes_bounded_time),
        cmocka_unit_test(test_files_of_strangers),
        cmocka_unit_test(test_deep_nesting_is_refused),
        cmocka_unit_test(test_a_regex_that_backtracks_for_ever_is_stopped),
        cmocka_unit_test(test_long_runs_pass_usual_regexes),
        cmocka_unit_test(test_a_large_file_loads_in_under_a_second),
        cmocka_unit_test(test_a_cut_file_never_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
