/*
 * Goal: every kind of value is read, limits hold, wrong use gives one clear line, and defaults are
 * applied first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/options.h"

struct settings {
    bool quiet;
    const char *name, *prompt, *extra;
    int color, count;
    uint64_t seed;
    double ratio;
    struct option_size size;
    struct option_list images;
};

static const char *const colors[] = {"red", "green", NULL};

static const struct option table[] = {
    {"PROMPT", NULL, OPTION_TEXT, offsetof(struct settings, prompt), .help = "help"},
    {"EXTRA", NULL, OPTION_TEXT, offsetof(struct settings, extra), .optional = true},
    {"quiet", NULL, OPTION_FLAG, offsetof(struct settings, quiet), .help = "help"},
    {"name", "TEXT", OPTION_TEXT, offsetof(struct settings, name), .required = true},
    {"color", "NAME", OPTION_CHOICE, offsetof(struct settings, color), .choices = colors,
     .default_value = "green"},
    {"count", "N", OPTION_INT, offsetof(struct settings, count), .letter = 'n',
     .default_value = "3", .min = 1, .max = 10},
    {"seed", "N", OPTION_U64, offsetof(struct settings, seed), .help = "help"},
    {"ratio", "R", OPTION_FLOAT, offsetof(struct settings, ratio), .min = -1, .max = 2},
    {"size", "WxH", OPTION_SIZE, offsetof(struct settings, size), .help = "help"},
    {"image", "FILE", OPTION_LIST, offsetof(struct settings, images), .help = "help"},
    {0}};

static const struct option_set set = {.program = "test", .options = table};

enum { ARGUMENTS_MAX = 40 };

/* Splits at spaces, which no test's values have. */
static enum status parse(struct settings *out, const char *line, struct error *err)
{
    static char copy[1024];
    char *arguments[ARGUMENTS_MAX];
    bool given[OPTIONS_MAX] = {false};
    bool help;
    int n = 0;
    memset(out, 0, sizeof(*out));
    options_defaults(&set, out);
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok(copy, " "); word && n < ARGUMENTS_MAX; word = strtok(NULL, " "))
        arguments[n++] = word;
    enum status st = options_parse(&set, out, n, arguments, given, &help, err);
    if (st == STATUS_OK && !help)
        st = options_check_required(&set, given, err);
    return st;
}

static void expect_refusal(const char *line, const char *part)
{
    struct settings settings;
    struct error err = {0};
    assert_int_equal(parse(&settings, line, &err), STATUS_INVALID);
    if (!strstr(err.text, part))
        fail_msg("'%s' gives '%s', expected '%s' in it", line, err.text, part);
}

static void test_every_kind(void **state)
{
    struct settings got;
    struct error err;
    (void)state;
    assert_int_equal(
        parse(&got,
              "fox --name=a=b --quiet -n 7 --seed 18446744073709551615 --ratio -0.5 --size 64x32 "
              "--image a.png --image b.png --color red",
              &err),
        STATUS_OK);
    assert_string_equal(got.prompt, "fox");
    assert_null(got.extra);
    assert_string_equal(got.name, "a=b");
    assert_true(got.quiet);
    assert_int_equal(got.count, 7);
    assert_true(got.seed == UINT64_MAX);
    assert_true(got.ratio == -0.5);
    assert_int_equal(got.size.width, 64);
    assert_int_equal(got.size.height, 32);
    assert_int_equal(got.images.n, 2);
    assert_string_equal(got.images.items[1], "b.png");
    assert_int_equal(got.color, 0);
}

static void test_defaults_and_rest(void **state)
{
    struct settings got;
    struct error err;
    (void)state;
    assert_int_equal(parse(&got, "--name x -- --prompt --extra", &err), STATUS_OK);
    assert_int_equal(got.count, 3);
    assert_int_equal(got.color, 1);
    assert_string_equal(got.prompt, "--prompt");
    assert_string_equal(got.extra, "--extra");
}

static void test_refusals(void **state)
{
    (void)state;
    expect_refusal("fox", "--name TEXT is required");
    expect_refusal("--name x", "PROMPT is required");
    expect_refusal("fox --name", "wants a value");
    expect_refusal("fox --name x --nam y", "--nam");
    expect_refusal("fox --name x -q", "-q");
    expect_refusal("a b c --name x", "unexpected argument 'c'");
    expect_refusal("fox --name x -n 0", "expected 1 to 10");
    expect_refusal("fox --name x -n 11", "expected 1 to 10");
    expect_refusal("fox --name x -n 1.5", "whole number");
    expect_refusal("fox --name x -n 99999999999999999999", "whole number");
    expect_refusal("fox --name x --count=\t5", "whole number");
    expect_refusal("fox --name x --seed -1", "--seed");
    expect_refusal("fox --name x --seed 18446744073709551616", "--seed");
    expect_refusal("fox --name x --ratio nan", "--ratio");
    expect_refusal("fox --name x --ratio 0x1", "--ratio");
    expect_refusal("fox --name x --ratio 2.5", "--ratio is 2.5, expected -1 to 2");
    expect_refusal("fox --name x --size 64", "WxH");
    expect_refusal("fox --name x --size 0x64", "WxH");
    expect_refusal("fox --name x --size 64x64x64", "WxH");
    expect_refusal("fox --name x --color blue", "red, green");
    expect_refusal("fox --name x --quiet=maybe", "true or false");
}

static void test_list_limit(void **state)
{
    struct settings settings;
    struct error err;
    char line[1024] = "fox --name x";
    (void)state;
    for (int i = 0; i < OPTION_LIST_MAX; i++)
        strcat(line, " --image f");
    assert_int_equal(parse(&settings, line, &err), STATUS_OK);
    strcat(line, " --image f");
    expect_refusal(line, "more than 16 times");
}

static void test_assign_by_name(void **state)
{
    struct settings got = {0};
    struct error err;
    (void)state;
    assert_int_equal(options_assign(&set, &got, "count", "4", &err), STATUS_OK);
    assert_int_equal(got.count, 4);
    assert_int_equal(options_assign(&set, &got, "quiet", "true", &err), STATUS_OK);
    assert_true(got.quiet);
    assert_int_equal(options_assign(&set, &got, "cuont", "4", &err), STATUS_NOT_FOUND);
    assert_int_equal(options_assign(&set, &got, "PROMPT", "4", &err), STATUS_NOT_FOUND);
    assert_int_equal(options_find(&set, "size"), 8);
    assert_int_equal(options_find(&set, "none"), -1);
}

static void test_help_wins(void **state)
{
    char *arguments[] = {"--wrong", "--help"};
    char *after_dashes[] = {"--", "--help"};
    struct settings got = {0};
    struct error err;
    bool help;
    (void)state;
    assert_int_equal(options_parse(&set, &got, 2, arguments, NULL, &help, &err), STATUS_OK);
    assert_true(help);
    assert_int_equal(options_parse(&set, &got, 2, after_dashes, NULL, &help, &err), STATUS_OK);
    assert_false(help);
    assert_string_equal(got.prompt, "--help");
}

static void test_help_text(void **state)
{
    char *text = NULL;
    size_t bytes;
    (void)state;
    FILE *out = open_memstream(&text, &bytes);
    options_print_help(&set, out);
    fclose(out);
    assert_non_null(strstr(text, "usage: test PROMPT [EXTRA] --name TEXT [options]\n"));
    assert_non_null(strstr(text, "-n, --count N"));
    assert_non_null(strstr(text, "[3]"));
    assert_non_null(strstr(text, "red|green"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),     cmocka_unit_test(test_defaults_and_rest),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_list_limit),
        cmocka_unit_test(test_assign_by_name), cmocka_unit_test(test_help_wins),
        cmocka_unit_test(test_help_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
