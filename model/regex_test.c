/*
 * regex_test.c - goal: what Ruby and PCRE2 spell differently matches as Oniguruma matches it; what
 * cannot is refused. Whole texts against HF's answers are in tokenizer_test.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "model/regex.h"

enum { MATCHES_MAX = 32 };

/* All matches of a pattern in a text, joined by "|"; the text of the error when the pattern is
 * refused. */
static const char *matches(const char *pattern, enum regex_syntax syntax, const char *text)
{
    static char joined[512];
    struct error err = {0};
    struct regex *regex;
    joined[0] = 0;
    if (regex_create(&regex, pattern, strlen(pattern), syntax, &err) != STATUS_OK) {
        assert_null(regex);
        strcpy(joined, err.text);
        return joined;
    }
    struct regex_search search;
    assert_int_equal(regex_search_init(&search, NULL), STATUS_OK);
    struct regex_walk walk = {
        .regex = regex, .search = &search, .text = text, .bytes = strlen(text)};
    for (int n = 0; n < MATCHES_MAX; n++) {
        bool found;
        size_t start, end;
        if (regex_walk_next(&walk, &found, &start, &end, &err) != STATUS_OK) {
            strcpy(joined, err.text);
            break;
        }
        if (!found)
            break;
        if (n > 0)
            strcat(joined, "|");
        strncat(joined, text + start, end - start);
    }
    regex_search_fini(&search);
    regex_destroy(regex);
    return joined;
}

static void test_rubys_spelling(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text, *expected;
    } cases[] = {
        {"\\h+", "xfF09gz", "fF09"},
        {"[\\h_]+", "xfF_09gz", "fF_09"},
        {"\\H+", "afxyza", "xyz"},
        {"\\s",
         "a\xc2\xa0\xe1\xa0\x8e"
         "b",
         "\xc2\xa0"}, /* U+180E is no space */
        {"\\S+", "a \xe1\xa0\x8e", "a|\xe1\xa0\x8e"},
        {"\\w", "\xc2\xb2-\xe2\x85\xa3\xe2\x93\x90", "\xc2\xb2|\xe2\x85\xa3|\xe2\x93\x90"},
        {"[\\w]", "\xc2\xb2-\xe2\x85\xa3", "\xe2\x85\xa3"}, /* the superscript only alone */
        {"\\u0041+", "xAAx", "AA"},
        {"a{,2}b", "aaab", "aab"},
        {"a{2}", "aaaa", "aa|aa"},
        {"a{x", "a{x", "a{x"},
        {"a{,}", "a{,}", "a{,}"},
        {"\\p{Lu}\\x{62}", "aBbC", "Bb"},
        {"(?m)a.b", "a\nb", "a\nb"},
        {"(?m:a.)b", "a\nb", "a\nb"},
        {"a.b", "a\nb", ""},
        {"^b$", "a\nb\nc", "b"}, /* lines always */
        {"(?i:THE)", "the Then", "the|The"},
        {"[]a]", "]a", "]|a"},
        {"[^]a]", "]ab", "b"},
        {"[[:alpha:]]+", "ab1", "ab"},
        {"\\[\\]", "[]", "[]"},
        {"b*", "abc", "|b|"}, /* an empty match right behind a match does not count */
        {"(?<=a)b", "ab b", "b"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *found = matches(cases[i].pattern, REGEX_RUBY, cases[i].text);
        if (strcmp(found, cases[i].expected) != 0)
            fail_msg("%s: '%s', expected '%s'", cases[i].pattern, found, cases[i].expected);
    }
    assert_string_equal(matches("a.b(", REGEX_LITERAL, "aXb(a.b("), "a.b(");
}

static void test_refused_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *expected;
    } cases[] = {
        {"[a&&b]", "regex '[a&&b]': && inside brackets is not supported"},
        {"[a[b]]", "a class inside a class is not supported"},
        {"[\\W]", "\\W inside brackets is not supported"},
        {"a{1,2}+", "+ behind {n,m} is not supported"},
        {"a\\", "ends in a backslash"},
        {"\\u00", "not followed by four"},
        {"\\u00zz", "regex"},
        {"\\p{L", "without }"},
        {"(", "regex '(': missing closing parenthesis"},
        {")", "regex ')':"},
        {"\\p{Nothing}", "unknown property"},
        {"\\C", "regex '\\C':"},
        {"(*LIMIT_MATCH=4000000000)a", "regex"}, /* limits are not the file's to set */
        {"(*UTF)a", "regex"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *found = matches(cases[i].pattern, REGEX_RUBY, "");
        if (!strstr(found, cases[i].expected))
            fail_msg("%s: '%s', expected '%s'", cases[i].pattern, found, cases[i].expected);
    }
    char longest[REGEX_PATTERN_BYTES_MAX + 1];
    memset(longest, 'a', sizeof(longest));
    struct regex *regex;
    assert_int_equal(regex_create(&regex, longest, sizeof(longest), REGEX_LITERAL, NULL),
                     STATUS_INVALID);
}

static void test_moved_starts_are_refused(void **state)
{
    (void)state;
    /* Refused when compiled, or (before PCRE2 10.38) when matched. */
    assert_non_null(strstr(matches("(?=ab\\K)", REGEX_RUBY, "ab"), "\\K"));
    assert_string_equal(matches("a\\Kb", REGEX_RUBY, "ab"), "b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rubys_spelling),
        cmocka_unit_test(test_refused_patterns),
        cmocka_unit_test(test_moved_starts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
