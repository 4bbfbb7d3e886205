/*
 * Goal: every field of an image request is taken or refused as INTERFACES says, and refusals name
 * the field.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/image_request.h"

static enum status parse(struct image_request *out, const char *body, struct image_refusal *refusal,
                         struct error *err)
{
    struct mgpt_settings settings;
    mgpt_settings_init(&settings);
    return image_request_parse(out, body, strlen(body), &settings, "fox-7b", refusal, err);
}

static void expect_refusal(const char *body, const char *field, const char *code)
{
    struct image_request request;
    struct image_refusal refusal;
    struct error err;
    enum status st = parse(&request, body, &refusal, &err);
    if (st == STATUS_OK || strcmp(refusal.field, field) != 0 || strcmp(refusal.code, code) != 0)
        fail_msg("%s: status %s, field '%s', code '%s'; expected '%s', '%s'", body, status_name(st),
                 refusal.field, refusal.code, field, code);
    if (field[0])
        assert_non_null(strstr(err.text, field));
    image_request_fini(&request);
}

static void expect_taken(const char *body)
{
    struct image_request request;
    struct image_refusal refusal;
    struct error err = {0};
    if (parse(&request, body, &refusal, &err) != STATUS_OK)
        fail_msg("%s: %s", body, err.text);
    image_request_fini(&request);
}

static void test_defaults(void **state)
{
    struct image_request request;
    struct image_refusal refusal;
    struct error err;
    (void)state;
    assert_int_equal(parse(&request, "{\"prompt\": \"a fox\"}", &refusal, &err), STATUS_OK);
    assert_string_equal(request.prompt, "a fox");
    assert_int_equal(request.prompt_bytes, 5);
    assert_int_equal(request.n, 1);
    assert_int_equal(request.size.width, 768);
    assert_int_equal(request.size.height, 768);
    assert_false(request.has_seed);
    assert_true(request.guidance == 4.0);
    assert_true(request.temperature == 1.0);
    assert_int_equal(request.image_top_k, 2000);
    assert_false(request.url);
    assert_false(request.stream);
    assert_int_equal(request.format, PICTURE_PNG);
    image_request_fini(&request);
}

static void test_all_fields(void **state)
{
    struct image_request request;
    struct image_refusal refusal;
    struct error err;
    const char *body =
        "{\"prompt\": \"a\\u0000b\", \"model\": \"fox-7b\", \"n\": 10, \"size\": \"512x1024\", "
        "\"seed\": "
        "9223372036854775807, \"guidance_scale\": 1, \"temperature\": 0, \"image_top_k\": 0, "
        "\"priority\": -3, \"response_format\": \"url\", \"output_format\": \"webp\", "
        "\"output_compression\": 55, \"stream\": true, \"progress\": true}";
    (void)state;
    assert_int_equal(parse(&request, body, &refusal, &err), STATUS_OK);
    assert_int_equal(request.prompt_bytes, 3);
    assert_int_equal(request.n, 10);
    assert_int_equal(request.size.width, 512);
    assert_int_equal(request.size.height, 1024);
    assert_true(request.seed == INT64_MAX);
    assert_true(request.has_seed);
    assert_true(request.guidance == 1.0);
    assert_true(request.temperature == 0.0);
    assert_int_equal(request.image_top_k, 0);
    assert_int_equal(request.priority, -3);
    assert_true(request.url);
    assert_int_equal(request.format, PICTURE_WEBP);
    assert_int_equal(request.quality, 55);
    assert_true(request.stream);
    assert_true(request.progress);
    image_request_fini(&request);
}

static void test_what_clients_send_is_taken(void **state)
{
    (void)state;
    expect_taken(
        "{\"prompt\":\"x\",\"size\":\"auto\",\"quality\":\"hd\",\"style\":\"vivid\",\"background\":"
        "\"auto\","
        "\"moderation\":\"low\",\"user\":\"u1\",\"partial_images\":2,\"negative_prompt\":\"\"}");
    expect_taken("{\"prompt\":\"x\",\"n\":null,\"size\":null,\"model\":null,\"seed\":null}");
    expect_taken("{\"prompt\":\"x\",\"n\":2.0}");
}

static void test_refusals(void **state)
{
    char body[IMAGE_REQUEST_PROMPT_BYTES_MAX + 64];
    (void)state;
    expect_refusal("{}", "prompt", "missing_field");
    expect_refusal("{\"prompt\":\"\"}", "prompt", "invalid_value");
    expect_refusal("{\"prompt\":[\"x\"]}", "prompt", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":0}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":11}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":-1}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":1e99}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":1.5}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":\"2\"}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"n\":true}", "n", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"size\":\"63x64\"}", "size", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"size\":64}", "size", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"seed\":-1}", "seed", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"seed\":1.5}", "seed", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"guidance_scale\":-1}", "guidance_scale", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"temperature\":1001}", "temperature", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"image_top_k\":-1}", "image_top_k", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"response_format\":\"gif\"}", "response_format",
                   "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"output_format\":\"gif\"}", "output_format",
                   "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"output_compression\":101}", "output_compression",
                   "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"background\":\"transparent\"}", "background",
                   "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"stream\":\"yes\"}", "stream", "invalid_value");
    expect_refusal("{\"prompt\":\"x\",\"negative_prompt\":\"ugly\"}", "negative_prompt",
                   "unsupported");
    expect_refusal("{\"prompt\":\"x\",\"num_inference_steps\":20}", "num_inference_steps",
                   "unknown_field");
    expect_refusal("{\"prompt\":\"x\",\"model\":\"other\"}", "model", "model_not_found");
    expect_refusal("{\"prompt\":\"x\",\"prompt\":\"y\"}", "", "invalid_json");
    expect_refusal("[]", "", "invalid_json");
    expect_refusal("null", "", "invalid_json");
    expect_refusal("", "", "invalid_json");
    expect_refusal("{\"prompt\":\"\xff\"}", "", "invalid_json");
    expect_refusal("{\"prompt\":\"x\",\"n\":1e999}", "", "invalid_json");
    int n = snprintf(body, sizeof(body), "{\"prompt\":\"");
    memset(body + n, 'a', IMAGE_REQUEST_PROMPT_BYTES_MAX);
    strcpy(body + n + IMAGE_REQUEST_PROMPT_BYTES_MAX, "\"}");
    expect_taken(body);
    strcpy(body + n + IMAGE_REQUEST_PROMPT_BYTES_MAX, "a\"}");
    expect_refusal(body, "prompt", "invalid_value");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_fields),
        cmocka_unit_test(test_what_clients_send_is_taken),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
