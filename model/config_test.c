/*
 * config_test.c - every spelling of config.json gives the same facts; every wrong one is refused
 * with file and field.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/config.h"
#include "model/test_folder.h"

/* The fields all valid files share; cases append further ones. */
#define SIZES                                                                                      \
    "\"model_type\":\"chameleon\",\"hidden_size\":64,\"intermediate_size\":176,\"num_hidden_"      \
    "layers\":4,"                                                                                  \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":10240,\"max_position_"     \
    "embeddings\":4096"

static void golden_configs(void **state)
{
    (void)state;
    struct error err;
    struct model_config c;
    assert_int_equal(
        model_config_load(&c, MGPT_SOURCE_DIR "/tests/golden/v7b/model/config.json", &err),
        STATUS_OK);
    assert_int_equal(c.hidden, 64);
    assert_int_equal(c.inter, 176);
    assert_int_equal(c.n_layers, 4);
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.vocab, 10240);
    assert_false(c.swin_norm);
    assert_float_equal(c.rope_factor, 1, 0);
    assert_int_equal(
        model_config_load(&c, MGPT_SOURCE_DIR "/tests/golden/v34b/model/config.json", &err),
        STATUS_OK);
    assert_int_equal(c.n_heads, 6);
    assert_int_equal(c.n_kv_heads, 2);
    assert_int_equal(c.model_parallel_size, 2);
    assert_true(c.swin_norm);
    assert_float_equal(c.rope_factor, 2, 0);
    assert_float_equal(c.rope_theta, 10000, 0);
    assert_float_equal(c.rms_eps, 1e-5f, 0);
}

static void spellings(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        float theta, factor;
    } cases[] = {
        {"", 10000, 1},
        {",\"rope_theta\":500.0,\"rope_scaling\":null", 500, 1},
        {",\"rope_theta\":500,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}", 500, 2},
        {",\"rope_theta\":500,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":2.5}", 500,
         2.5f},
        {",\"rope_theta\":500,\"rope_scaling\":{\"rope_type\":\"linear\",\"type\":\"linear\","
         "\"factor\":4.0}",
         500, 4},
        {",\"rope_scaling\":{\"rope_type\":\"default\",\"factor\":7}", 10000, 1},
        {",\"rope_parameters\":{\"rope_type\":\"linear\",\"rope_theta\":7e3,\"factor\":2.0}", 7000,
         2},
        {",\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":7000.0}", 7000, 1},
        {",\"rope_parameters\":{\"rope_theta\":7000.0},\"rope_scaling\":null", 7000, 1},
        {",\"rope_parameters\":null,\"rope_theta\":9", 9, 1},
        {",\"rope_theta\":1,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":3}", 3,
         1},
        {",\"dtype\":\"bfloat16\",\"mask_image_logits\":true,\"vocabulary_map\":null,\"bos_token_"
         "id\":1",
         10000, 1},
        {",\"torch_dtype\":\"float16\",\"vocabulary_map\":{\"<image>\":8711},\"hidden_act\":"
         "\"silu\"",
         10000, 1},
        {",\"head_dim\":16,\"quantization_config\":null,\"tie_word_embeddings\":false", 10000, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[1024];
        struct error err = {0};
        struct model_config c;
        snprintf(text, sizeof(text), "{" SIZES "%s}", cases[i].fields);
        enum status st = model_config_parse(&c, text, strlen(text), "config.json", &err);
        if (st != STATUS_OK)
            print_error("%s: %s\n", cases[i].fields, err.text);
        assert_int_equal(st, STATUS_OK);
        assert_float_equal(c.rope_theta, cases[i].theta, 0);
        assert_float_equal(c.rope_factor, cases[i].factor, 0);
    }
}

static void defaults(void **state)
{
    (void)state;
    const char text[] =
        "{\"model_type\":\"chameleon\",\"hidden_size\":64.0,\"intermediate_size\":176,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"vocab_size\":10240,"
        "\"max_position_embeddings\":4096}";
    struct model_config c;
    assert_int_equal(model_config_parse(&c, text, strlen(text), "c", NULL), STATUS_OK);
    assert_int_equal(c.n_kv_heads, 4);
    assert_int_equal(c.model_parallel_size, 1);
    assert_false(c.attention_bias);
    assert_false(c.mlp_bias);
    assert_float_equal(c.rms_eps, 1e-5f, 0);
}

/* A case replaces the value of one key of a valid file (or adds the key), and names what the text
 * must say. */
static const struct {
    const char *key, *value;
    enum status status;
    const char *words[3];
} wrong_fields[] = {
    {"model_type", "\"llama\"", STATUS_UNSUPPORTED, {"'model_type'", "'llama'", "'chameleon'"}},
    {"model_type", "null", STATUS_INVALID, {"'model_type'"}},
    {"model_type", "7", STATUS_INVALID, {"'model_type'", "a string"}},
    {"hidden_size", "0", STATUS_INVALID, {"'hidden_size'", "0", "from 1 to"}},
    {"hidden_size", "-64", STATUS_INVALID, {"'hidden_size'", "-64"}},
    {"hidden_size", "\"64\"", STATUS_INVALID, {"'hidden_size'", "the string '64'", "integer"}},
    {"hidden_size", "64.5", STATUS_INVALID, {"'hidden_size'", "64.5"}},
    {"hidden_size", "66", STATUS_INVALID, {"'hidden_size'", "66", "'num_attention_heads'"}},
    {"hidden_size", "4294967360", STATUS_INVALID, {"'hidden_size'", "4294967360"}},
    {"hidden_size", "99999999999999999999", STATUS_INVALID, {"no JSON", "integer"}},
    {"hidden_size", "1e400", STATUS_INVALID, {"no JSON"}},
    {"hidden_size", "4", STATUS_INVALID, {"even number"}},
    {"hidden_size", "8192", STATUS_INVALID, {"even number", "2048"}},
    {"intermediate_size", "null", STATUS_INVALID, {"'intermediate_size'", "null"}},
    {"num_hidden_layers",
     "1000000000",
     STATUS_INVALID,
     {"'num_hidden_layers'", "1000000000", "1024"}},
    {"num_hidden_layers", "[4]", STATUS_INVALID, {"'num_hidden_layers'", "an array"}},
    {"num_attention_heads", "0", STATUS_INVALID, {"'num_attention_heads'", "0"}},
    {"num_attention_heads", "3", STATUS_INVALID, {"'hidden_size'", "multiple"}},
    {"num_key_value_heads", "0", STATUS_INVALID, {"'num_key_value_heads'", "0"}},
    {"num_key_value_heads",
     "3",
     STATUS_INVALID,
     {"'num_attention_heads'", "multiple", "'num_key_value_heads', 3"}},
    {"num_key_value_heads", "8", STATUS_INVALID, {"'num_key_value_heads', 8"}},
    {"model_parallel_size", "3", STATUS_INVALID, {"'model_parallel_size', 3"}},
    {"model_parallel_size",
     "4",
     STATUS_INVALID,
     {"'num_key_value_heads'", "'model_parallel_size', 4"}},
    {"vocab_size", "0", STATUS_INVALID, {"'vocab_size'"}},
    {"vocab_size", "4611686018427387904", STATUS_INVALID, {"'vocab_size'"}},
    {"max_position_embeddings", "0", STATUS_INVALID, {"'max_position_embeddings'"}},
    {"rms_norm_eps", "-1e-5", STATUS_INVALID, {"'rms_norm_eps'"}},
    {"rms_norm_eps", "\"small\"", STATUS_INVALID, {"'rms_norm_eps'", "number"}},
    {"swin_norm", "1", STATUS_INVALID, {"'swin_norm'", "true or false"}},
    {"hidden_act", "\"gelu\"", STATUS_UNSUPPORTED, {"'hidden_act'", "'gelu'", "'silu'"}},
    {"head_dim", "32", STATUS_UNSUPPORTED, {"'head_dim'", "32", "16"}},
    {"tie_word_embeddings", "true", STATUS_UNSUPPORTED, {"'tie_word_embeddings'"}},
    {"quantization_config", "{}", STATUS_UNSUPPORTED, {"'quantization_config'"}},
    {"rope_theta", "0", STATUS_INVALID, {"'rope_theta'"}},
    {"rope_theta", "\"x\"", STATUS_INVALID, {"'rope_theta'", "number"}},
    {"rope_scaling", "\"linear\"", STATUS_INVALID, {"'rope_scaling'", "an object"}},
    {"rope_scaling",
     "{\"type\":\"dynamic\",\"factor\":2}",
     STATUS_UNSUPPORTED,
     {"'rope_scaling.type'", "'dynamic'", "'linear'"}},
    {"rope_scaling", "{\"type\":\"linear\"}", STATUS_INVALID, {"'rope_scaling.factor'", "missing"}},
    {"rope_scaling",
     "{\"type\":\"linear\",\"factor\":0}",
     STATUS_INVALID,
     {"'rope_scaling.factor'"}},
    {"rope_scaling",
     "{\"type\":\"linear\",\"factor\":-2}",
     STATUS_INVALID,
     {"'rope_scaling.factor'"}},
    {"rope_scaling", "{\"type\":3}", STATUS_INVALID, {"'rope_scaling.type'"}},
    {"rope_parameters",
     "{\"rope_type\":\"yarn\",\"factor\":2}",
     STATUS_UNSUPPORTED,
     {"'rope_parameters.rope_type'", "'yarn'"}},
    {"rope_parameters",
     "{\"rope_type\":\"linear\",\"factor\":2},\"rope_scaling\":{\"type\":\"linear\",\"factor\":4}",
     STATUS_INVALID,
     {"'rope_scaling'", "'rope_parameters'"}},
    {"rope_parameters", "{\"rope_theta\":-1}", STATUS_INVALID, {"'rope_parameters.rope_theta'"}},
    {"vocab_size", "1,\"vocab_size\":2", STATUS_INVALID, {"no JSON", "duplicate"}},
};

/* Cuts "key":value out of SIZES; sizes are plain tokens up to the next comma. */
static void without_key(char *out, size_t n, const char *key)
{
    char quoted[64];
    snprintf(quoted, sizeof(quoted), "\"%s\":", key);
    const char *at = strstr(SIZES, quoted);
    if (!at) {
        snprintf(out, n, "%s,", SIZES);
        return;
    }
    const char *end = strchr(at, ',');
    snprintf(out, n, "%.*s%s%s", (int)(at - SIZES), SIZES, end ? end + 1 : "", end ? "," : "");
}

static void refused_fields(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(wrong_fields) / sizeof(wrong_fields[0]); i++) {
        char kept[512], text[1024];
        struct error err = {0};
        struct model_config c;
        without_key(kept, sizeof(kept), wrong_fields[i].key);
        snprintf(text, sizeof(text), "{%s\"%s\":%s}", kept, wrong_fields[i].key,
                 wrong_fields[i].value);
        enum status st = model_config_parse(&c, text, strlen(text), "some/config.json", &err);
        test_expect_error(text, st, &err, wrong_fields[i].status, wrong_fields[i].words, 3);
        assert_non_null(strstr(err.text, "'some/config.json'"));
    }
}

static void missing_fields(void **state)
{
    (void)state;
    static const char *const required[] = {
        "model_type",          "hidden_size", "intermediate_size",      "num_hidden_layers",
        "num_attention_heads", "vocab_size",  "max_position_embeddings"};
    for (size_t i = 0; i < sizeof(required) / sizeof(required[0]); i++) {
        char kept[512], text[1024];
        struct error err = {0};
        struct model_config c;
        without_key(kept, sizeof(kept), required[i]);
        snprintf(text, sizeof(text), "{%s\"x\":0}", kept);
        enum status st = model_config_parse(&c, text, strlen(text), "config.json", &err);
        test_expect_error(required[i], st, &err, STATUS_INVALID,
                          (const char *[]){required[i], "missing"}, 2);
    }
}

static void refused_files(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *words[2];
    } cases[] = {
        {"", {"no JSON"}},
        {"{", {"no JSON", "line 1"}},
        {"[]", {"an array", "an object"}},
        {"\"chameleon\"", {"no JSON"}},
        {"{} {}", {"no JSON"}},
        {"{\"a\":\"\xff\xfe\"}", {"no JSON"}},
        {"{\"a\":\"\\u0000\"}", {"no JSON"}},
        {"{\"a\":nan}", {"no JSON"}},
        {"# yaml: 1", {"no JSON"}},
    };
    struct test_folder folder;
    struct error err;
    struct model_config c;
    test_folder_make(&folder);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_folder_write_text(&folder, "config.json", cases[i].text);
        enum status st = model_config_load(&c, folder.joined, &err);
        test_expect_error(cases[i].text, st, &err, STATUS_INVALID, cases[i].words, 2);
        assert_non_null(strstr(err.text, "config.json"));
    }
    test_folder_remove(&folder);
}

/* Nesting is bounded by the JSON library, size by us; a pipe is not waited for. */
static void limits(void **state)
{
    (void)state;
    struct test_folder folder;
    struct error err;
    struct model_config c;
    test_folder_make(&folder);
    char *deep = malloc(200000);
    memset(deep, '[', 200000);
    memcpy(deep, "{\"a\":", 5);
    assert_int_equal(model_config_parse(&c, deep, 200000, "c", &err), STATUS_INVALID);
    free(deep);
    assert_int_equal(
        truncate(test_folder_write_text(&folder, "big.json", "{}"), CONFIG_BYTES_MAX + 1), 0);
    test_expect_error("big", model_config_load(&c, folder.joined, &err), &err, STATUS_INVALID,
                      (const char *[]){"4194305 bytes", "at most 4194304"}, 2);
    assert_int_equal(mkfifo(test_folder_path(&folder, "pipe"), 0600), 0);
    test_expect_error("pipe", model_config_load(&c, folder.joined, &err), &err, STATUS_INVALID,
                      (const char *[]){"pipe", "regular file"}, 2);
    test_expect_error("folder", model_config_load(&c, folder.path, &err), &err, STATUS_INVALID,
                      (const char *[]){"regular file"}, 1);
    test_expect_error("none", model_config_load(&c, test_folder_path(&folder, "none"), &err), &err,
                      STATUS_NOT_FOUND, (const char *[]){"none", "no such file"}, 2);
    test_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_configs), cmocka_unit_test(spellings),
        cmocka_unit_test(defaults),       cmocka_unit_test(refused_fields),
        cmocka_unit_test(missing_fields), cmocka_unit_test(refused_files),
        cmocka_unit_test(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
