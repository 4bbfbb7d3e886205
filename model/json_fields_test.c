/*
 * json_fields_test.c - goal: JSON that would take too much memory is refused before it is parsed,
 * and error texts tell an integer from a real number. Fields are tested where they are taken.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "model/json_fields.h"

static void test_values_are_counted(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t n;
    } cases[] = {
        {"", 0},
        {"[]", 1},
        {"{\"a\": 1, \"b\": [2, 3]}", 4},
        {"[\",,{[\", \"\\\",[\"]", 2}, /* none in strings, also behind an escaped quote */
        {"[\"\\\\\",{}]", 3},
        {"\"[,", 0},  /* a string that does not end */
        {"[\"\\", 1}, /* an escape that does not end */
        {"\xff,\x80", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *exact = malloc(strlen(cases[i].text) + 1); /* so that a sanitizer sees its end */
        memcpy(exact, cases[i].text, strlen(cases[i].text));
        assert_int_equal(json_fields_count_values(exact, strlen(cases[i].text)), cases[i].n);
        free(exact);
    }
}

/* [[],[],...]: n values in the count of n / 2 pairs. */
static char *bomb(size_t n, size_t *bytes)
{
    char *text = malloc(n / 2 * 3 + 3);
    *bytes = 0;
    text[(*bytes)++] = '[';
    for (size_t i = 0; i < n / 2; i++, *bytes += 3)
        memcpy(text + *bytes, "[],", 3);
    text[*bytes - 1] = ']';
    return text;
}

static void test_limit_of_values(void **state)
{
    (void)state;
    json_t *root;
    struct error err;
    size_t bytes;
    char *text = bomb(JSON_FIELDS_VALUES_MAX, &bytes);
    assert_int_equal(json_fields_load(&root, text, bytes, "x.json", &err), STATUS_OK);
    json_decref(root);
    free(text);
    text = bomb(JSON_FIELDS_VALUES_MAX + 2, &bytes);
    assert_int_equal(json_fields_load(&root, text, bytes, "x.json", &err), STATUS_INVALID);
    assert_null(root);
    assert_string_equal(err.text, "'x.json' holds some 5242882 values, expected at most 5242880");
    free(text);
}

static void test_texts(void **state)
{
    (void)state;
    static const struct {
        const char *json, *text;
    } cases[] = {
        {"[null]", "null"},
        {"[true]", "true"},
        {"[-3]", "-3"},
        {"[64.0]", "64.0"},
        {"[1.5]", "1.5"},
        {"[1e99]", "1e+99"},
        {"[[1,2]]", "an array of 2"},
        {"[{}]", "an object"},
        {"[\"a\"]", "the string 'a'"},
        {"[]", "nothing"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *root;
        char text[JSON_FIELDS_TEXT_BYTES];
        assert_int_equal(json_fields_load(&root, cases[i].json, strlen(cases[i].json), "x", NULL),
                         STATUS_OK);
        assert_string_equal(json_fields_describe(text, json_array_get(root, 0)), cases[i].text);
        json_decref(root);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_counted),
        cmocka_unit_test(test_limit_of_values),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
