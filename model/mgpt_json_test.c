/*
 * mgpt_json_test.c - defaults without the file, each key with it, a misspelt or impossible one
 * refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/mgpt_json.h"
#include "model/test_folder.h"

static void defaults_and_values(void **state)
{
    (void)state;
    struct test_folder folder;
    struct mgpt_settings s;
    struct error err = {0};
    test_folder_make(&folder);
    assert_int_equal(mgpt_settings_load(&s, folder.path, &err), STATUS_OK);
    assert_int_equal(s.target_size, 768);
    assert_int_equal(s.default_width, 768);
    assert_int_equal(s.image_top_k, 2000);
    assert_int_equal(s.text_top_k, 10);
    assert_float_equal(s.guidance_scale, 4, 0);
    assert_float_equal(s.temperature, 1, 0);
    test_folder_write_text(&folder, "mgpt.json", "{\"target_size\":512}");
    assert_int_equal(mgpt_settings_load(&s, folder.path, &err), STATUS_OK);
    assert_int_equal(s.target_size, 512);
    assert_int_equal(s.default_height, 512);
    test_folder_write_text(
        &folder, "mgpt.json",
        "{\"target_size\":1024,\"default_size\":\"1344x768\",\"sampling\":{\"temperature\":0,"
        "\"guidance_scale\":3.5,\"image_top_k\":0,\"text_top_k\":5}}");
    assert_int_equal(mgpt_settings_load(&s, folder.path, &err), STATUS_OK);
    assert_int_equal(s.default_width, 1344);
    assert_int_equal(s.default_height, 768);
    assert_float_equal(s.temperature, 0, 0);
    assert_float_equal(s.guidance_scale, 3.5, 0);
    assert_int_equal(s.image_top_k, 0);
    assert_int_equal(s.text_top_k, 5);
    test_folder_remove(&folder);
}

static void a_link_that_leads_nowhere(void **state)
{
    (void)state;
    struct test_folder folder;
    struct mgpt_settings s;
    struct error err = {0};
    test_folder_make(&folder);
    assert_int_equal(symlink("nowhere", test_folder_path(&folder, "mgpt.json")), 0);
    assert_int_equal(mgpt_settings_load(&s, folder.path, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "mgpt.json': no such file"));
    test_folder_remove(&folder);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *words[2];
    } cases[] = {
        {"", {"no JSON"}},
        {"[]", {"an array"}},
        {"{\"target_sise\":512}", {"'target_sise'", "no key"}},
        {"{\"target_size\":500}", {"'target_size'", "multiple of 32"}},
        {"{\"target_size\":0}", {"'target_size'", "from 32"}},
        {"{\"target_size\":1000000000}", {"'target_size'", "4096"}},
        {"{\"default_size\":512}", {"'default_size'", "a string"}},
        {"{\"default_size\":\"512\"}", {"'default_size'", "WIDTHxHEIGHT"}},
        {"{\"default_size\":\"512x512x512\"}", {"'default_size'"}},
        {"{\"default_size\":\"512x500\"}", {"'default_size'", "multiples of 32"}},
        {"{\"default_size\":\"-512x512\"}", {"'default_size'"}},
        {"{\"default_size\":\"99999x99999\"}", {"'default_size'"}},
        {"{\"default_size\":\"00000000000000000512x512\"}", {"'default_size'"}},
        {"{\"sampling\":[]}", {"'sampling'", "an object"}},
        {"{\"sampling\":{\"top_k\":1}}", {"'sampling.top_k'", "no key"}},
        {"{\"sampling\":{\"temperature\":-1}}", {"'sampling.temperature'", "-1"}},
        {"{\"sampling\":{\"temperature\":1e99}}", {"'sampling.temperature'"}},
        {"{\"sampling\":{\"image_top_k\":-1}}", {"'sampling.image_top_k'", "-1"}},
        {"{\"sampling\":{\"image_top_k\":1.5}}", {"'sampling.image_top_k'", "1.5"}},
        {"{\"sampling\":{\"guidance_scale\":\"4\"}}", {"'sampling.guidance_scale'", "a number"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mgpt_settings s;
        struct error err = {0};
        enum status st =
            mgpt_settings_parse(&s, cases[i].text, strlen(cases[i].text), "d/mgpt.json", &err);
        test_expect_error(cases[i].text, st, &err, STATUS_INVALID, cases[i].words, 2);
        assert_non_null(strstr(err.text, "'d/mgpt.json'"));
    }
    struct mgpt_settings s;
    assert_int_equal(mgpt_settings_parse(&s, "{}", MGPT_JSON_BYTES_MAX + 1, "x", NULL),
                     STATUS_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_values),
        cmocka_unit_test(a_link_that_leads_nowhere),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
