/*
 * Goal: a flat YAML mapping becomes options, the command line wins, and everything that is not such
 * a mapping is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/config_file.h"

struct settings {
    const char *model;
    int stages;
    bool quiet;
};

static const struct option table[] = {
    {"model", "DIR", OPTION_TEXT, offsetof(struct settings, model), .required = true},
    {"stages", "N", OPTION_INT, offsetof(struct settings, stages), .default_value = "1", .min = 1,
     .max = 64},
    {"quiet", NULL, OPTION_FLAG, offsetof(struct settings, quiet), .help = "help"},
    {0}};

static const struct option_set set = {.program = "test", .options = table};

static enum status read_text(struct config_file *file, struct settings *out, const char *text,
                             struct error *err)
{
    bool given[OPTIONS_MAX] = {false};
    memset(out, 0, sizeof(*out));
    options_defaults(&set, out);
    enum status st = config_file_parse(file, text, strlen(text), "test.yaml", err);
    return st == STATUS_OK ? config_file_apply(file, &set, out, given, "test.yaml", err) : st;
}

static void test_values(void **state)
{
    struct config_file file;
    struct settings got;
    struct error err;
    (void)state;
    assert_int_equal(
        read_text(&file, &got, "# comment\nmodel: ./7b\nstages: 4\nquiet: true\n", &err),
        STATUS_OK);
    assert_string_equal(got.model, "./7b");
    assert_int_equal(got.stages, 4);
    assert_true(got.quiet);
    config_file_fini(&file);
    assert_int_equal(read_text(&file, &got, "", &err), STATUS_OK);
    assert_int_equal(got.stages, 1);
    config_file_fini(&file);
}

static void expect_refusal(const char *text, const char *part)
{
    struct config_file file;
    struct settings got;
    struct error err = {0};
    if (read_text(&file, &got, text, &err) == STATUS_OK)
        fail_msg("'%s' was taken", text);
    if (!strstr(err.text, part) || !strstr(err.text, "test.yaml"))
        fail_msg("'%s' gives '%s', expected '%s' in it", text, err.text, part);
    config_file_fini(&file);
}

static void test_refusals(void **state)
{
    (void)state;
    expect_refusal("stagges: 2\n", "stagges");
    expect_refusal("stages: 65\n", "expected 1 to 64");
    expect_refusal("stages: [1, 2]\n", "line 1");
    expect_refusal("stages:\n  deep: 1\n", "line 2");
    expect_refusal("- stages\n", "lists");
    expect_refusal("just text\n", "name: value");
    expect_refusal("stages: 1\nstages: 2\n", "twice");
    expect_refusal("model: &a x\nquiet: *a\n", "anchors");
    expect_refusal("stages: !!int 2\n", "tags");
    expect_refusal("stages: 1\n---\nstages: 2\n", "one mapping");
    expect_refusal("model: \"x\\0y\"\n", "NUL");
    expect_refusal("model: {\n", "line");
    expect_refusal("\tstages: 1\n", "line");
}

static void test_too_many_keys(void **state)
{
    struct config_file file;
    struct error err;
    char text[4096] = "";
    (void)state;
    for (int i = 0; i <= CONFIG_FILE_KEYS_MAX; i++)
        snprintf(text + strlen(text), 32, "key%d: x\n", i);
    assert_int_equal(config_file_parse(&file, text, strlen(text), "test.yaml", &err),
                     STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_too_many_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
