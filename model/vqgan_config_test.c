/*
 * vqgan_config_test.c - vqgan.yaml in both YAML styles; wrong sizes, aliases and explosions are
 * refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/test_folder.h"
#include "model/vqgan_config.h"

/* The published file's layout; %s is put behind the sizes of ddconfig. */
static const char published[] =
    "model:\n"
    "  base_learning_rate: 4.5e-06\n"
    "  target: taming.models.vqgan.VQModel\n"
    "  params:\n"
    "    embed_dim: 256\n"
    "    n_embed: 8192\n"
    "    ddconfig:\n"
    "      double_z: false\n"
    "      z_channels: 256\n"
    "      resolution: 512\n"
    "      in_channels: 3\n"
    "      out_ch: 3\n"
    "      ch: 128\n"
    "      ch_mult:\n      - 1\n      - 1\n      - 2\n      - 2\n      - 4\n"
    "      num_res_blocks: 2\n"
    "      attn_resolutions: []\n"
    "      dropout: 0.0\n"
    "    lossconfig:\n"
    "      target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator\n"
    "      params: {disc_start: 100001, nested: [[1, 2], {a: b}]}\n";

/* `published` with the first `from` replaced by `to`. The caller frees. */
static char *replaced(const char *from, const char *to)
{
    const char *at = strstr(published, from);
    assert_non_null(at);
    char *text;
    assert_true(
        asprintf(&text, "%.*s%s%s", (int)(at - published), published, to, at + strlen(from)) > 0);
    return text;
}

static void good_files(void **state)
{
    (void)state;
    struct vqgan_config c;
    struct error err = {0};
    assert_int_equal(vqgan_config_parse(&c, published, strlen(published), "x", &err), STATUS_OK);
    assert_int_equal(c.ch, 128);
    assert_int_equal(c.n_levels, 5);
    assert_int_equal(c.ch_mult[2], 2);
    assert_int_equal(c.ch_mult[4], 4);
    assert_int_equal(c.n_res_blocks, 2);
    assert_int_equal(c.z_channels, 256);
    assert_int_equal(c.embed_dim, 256);
    assert_int_equal(c.n_embed, 8192);
    assert_int_equal(vqgan_config_load(
                         &c, MGPT_SOURCE_DIR "/tests/golden/v34b/model/tokenizer/vqgan.yaml", &err),
                     STATUS_OK);
    assert_int_equal(c.ch, 32);
    static const char *const also[][2] = {
        {"      ch_mult:\n      - 1\n      - 1\n      - 2\n      - 2\n      - 4\n",
         "      ch_mult: [1,1,2,2,4]\n"},
        {"attn_resolutions: []", "attn_resolutions: [7]"},
        {"      attn_resolutions: []\n", ""},
        {"double_z: false", "double_z: False"},
        {"dropout: 0.0", "dropout: &anchor 0.0"},
        {"model:\n", "---\nmodel:\n"},
        {"ch: 128", "ch: 32"},
    };
    for (size_t i = 0; i < sizeof(also) / sizeof(also[0]); i++) {
        char *text = replaced(also[i][0], also[i][1]);
        enum status st = vqgan_config_parse(&c, text, strlen(text), "x", &err);
        if (st != STATUS_OK)
            print_error("%s: %s\n", also[i][1], err.text);
        assert_int_equal(st, STATUS_OK);
        free(text);
    }
}

/* Attention at the levels whose resolution is listed; one that no level has asks for nothing. */
static void attention(void **state)
{
    (void)state;
    struct vqgan_config c;
    char *text = replaced("attn_resolutions: []", "attn_resolutions: [32, 7, 512]");
    assert_int_equal(vqgan_config_parse(&c, text, strlen(text), "x", NULL), STATUS_OK);
    for (int level = 0; level < c.n_levels; level++)
        assert_int_equal(c.attention[level], level == 0 || level == 4);
    free(text);
}

static const struct {
    const char *from, *to;
    enum status status;
    const char *words[3];
} value_cases[] = {
    {"      ch: 128\n", "", STATUS_INVALID, {"'model.params.ddconfig.ch'", "missing"}},
    {"    embed_dim: 256\n", "", STATUS_INVALID, {"'model.params.embed_dim'", "missing"}},
    {"      double_z: false\n",
     "",
     STATUS_INVALID,
     {"'model.params.ddconfig.double_z'", "missing"}},
    {"ch: 128", "ch: 0", STATUS_INVALID, {"ddconfig.ch'", "0", "from 1 to 4096"}},
    {"ch: 128", "ch: -128", STATUS_INVALID, {"ddconfig.ch'", "-128"}},
    {"ch: 128",
     "ch: 99999999999999999999",
     STATUS_INVALID,
     {"ddconfig.ch'", "99999999999999999999"}},
    {"ch: 128", "ch: 128.5", STATUS_INVALID, {"ddconfig.ch'", "128.5"}},
    {"ch: 128", "ch: wide", STATUS_INVALID, {"ddconfig.ch'", "wide"}},
    {"ch: 128", "ch: ''", STATUS_INVALID, {"ddconfig.ch'"}},
    {"ch: 128", "ch: \"128\"", STATUS_INVALID, {"ddconfig.ch'", "\"128\"", "without quotes"}},
    {"ch: 128", "ch: \"128\\0\"", STATUS_INVALID, {"line", "NUL"}},
    {"ch: 128", "ch: 0128", STATUS_INVALID, {"ddconfig.ch'", "0128"}},
    {"ch: 128", "ch: +128", STATUS_INVALID, {"ddconfig.ch'", "+128"}},
    {"      - 4\n", "      - '4'\n", STATUS_INVALID, {"ch_mult'", "\"4\"", "without quotes"}},
    {"double_z: false", "double_z: 'false'", STATUS_INVALID, {"double_z'", "without quotes"}},
    {"ch: 128", "ch: [128]", STATUS_INVALID, {"ddconfig.ch'", "a list", "one integer"}},
    {"ch: 128", "ch: 48", STATUS_INVALID, {"48", "multiple of 32"}},
    {"ch: 128", "ch: 4096", STATUS_INVALID, {"4096 times 2", "at most 4096"}},
    {"ch: 128", "ch: 128\n      ch: 64", STATUS_INVALID, {"ddconfig.ch'", "given twice"}},
    {"ch: 128", "ch: *somewhere", STATUS_INVALID, {"aliases", "somewhere"}},
    {"      - 4\n", "", STATUS_UNSUPPORTED, {"ch_mult'", "4 levels", "expected 5"}},
    {"      - 4\n",
     "      - 4\n      - 4\n      - 4\n      - 4\n      - 4\n",
     STATUS_INVALID,
     {"ch_mult'", "more than 8"}},
    {"      - 4\n", "      - [4]\n", STATUS_INVALID, {"ch_mult'", "list of integers"}},
    {"      - 4\n", "      - 0\n", STATUS_INVALID, {"ch_mult'", "0"}},
    {"double_z: false", "double_z: true", STATUS_UNSUPPORTED, {"double_z'", "expected false"}},
    {"double_z: false", "double_z: maybe", STATUS_INVALID, {"double_z'", "maybe"}},
    {"double_z: false",
     "double_z: false\n      double_z: true",
     STATUS_INVALID,
     {"double_z'", "given twice"}},
    {"in_channels: 3", "in_channels: 1", STATUS_UNSUPPORTED, {"in_channels'", "1", "expected 3"}},
    {"out_ch: 3", "out_ch: 4", STATUS_UNSUPPORTED, {"out_ch'", "4", "expected 3"}},
    {"attn_resolutions: []",
     "attn_resolutions: [all]",
     STATUS_INVALID,
     {"attn_resolutions'", "all"}},
    {"      resolution: 512\n      in_channels: 3\n      out_ch: 3\n      ch: 128\n",
     "",
     STATUS_INVALID,
     {"missing"}},
    {"n_embed: 8192", "n_embed: 1048577", STATUS_INVALID, {"'model.params.n_embed'", "1048577"}},
    {"n_embed: 8192",
     "? [a, b]\n    : 1\n    n_embed: 8192",
     STATUS_INVALID,
     {"key is not plain text"}},
    {"model:\n", "- model:\n", STATUS_INVALID, {"one mapping"}},
    {"model:\n", "other:\n", STATUS_INVALID, {"missing"}},
    {"model:\n", "model: {\n", STATUS_INVALID, {"no YAML", "line"}},
    {"model:\n", "\tmodel:\n", STATUS_INVALID, {"no YAML"}},
    {"dropout: 0.0", "dropout: \xff\xfe", STATUS_INVALID, {"no YAML"}},
};

static void wrong_values(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(value_cases) / sizeof(value_cases[0]); i++) {
        struct vqgan_config c;
        struct error err = {0};
        char *text = replaced(value_cases[i].from, value_cases[i].to);
        enum status st = vqgan_config_parse(&c, text, strlen(text), "d/vqgan.yaml", &err);
        test_expect_error(value_cases[i].to, st, &err, value_cases[i].status, value_cases[i].words,
                          3);
        assert_non_null(strstr(err.text, "'d/vqgan.yaml'"));
        free(text);
    }
}

static void wrong_documents(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *word;
    } cases[] = {
        {"", "one document"},    {"[1, 2]", "one mapping"},
        {"text", "one mapping"}, {"{a: 1}\n---\n{b: 2}", "one document"},
        {"*a", "one mapping"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct vqgan_config c;
        struct error err = {0};
        enum status st = vqgan_config_parse(&c, cases[i].text, strlen(cases[i].text), "x", &err);
        test_expect_error(cases[i].text, st, &err, STATUS_INVALID, &cases[i].word, 1);
    }
}

/* Explosions: anchors that multiply, nesting, length. */
static void explosions(void **state)
{
    (void)state;
    const char laughs[] = "a: &a [x, x, x, x, x, x, x, x, x]\n"
                          "b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
                          "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\n"
                          "d: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n"
                          "e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n";
    struct vqgan_config c;
    struct error err = {0};
    test_expect_error("laughs", vqgan_config_parse(&c, laughs, strlen(laughs), "x", &err), &err,
                      STATUS_INVALID, (const char *[]){"line 2", "aliases", "*a"}, 3);
    static const struct {
        const char *before, *unit;
        size_t n_bytes;
        const char *word;
    } cases[] = {
        {"a: ", "[", 100, "nested deeper than 32"},
        {"a: ", "[", VQGAN_YAML_BYTES_MAX, "x'"},
        {"a: ", "{a: ", 1000, "nested deeper than 32"},
        {"a: [", "1,", 100000, "more than 20000 values"},
        {"", "a: 1\n", 100000, "more than 20000 values"},
        {"", "- ", 10000, "YAML"},
        {"", "a: 1\n", VQGAN_YAML_BYTES_MAX + 1, "at most 1048576"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n_before = strlen(cases[i].before), n_unit = strlen(cases[i].unit);
        char *text = malloc(cases[i].n_bytes);
        for (size_t k = 0; k < cases[i].n_bytes; k++)
            text[k] = k < n_before ? cases[i].before[k] : cases[i].unit[(k - n_before) % n_unit];
        enum status st = vqgan_config_parse(&c, text, cases[i].n_bytes, "x", &err);
        if (i == 5) /* a document of nested lists is no mapping */
            assert_int_equal(st, STATUS_INVALID);
        else
            test_expect_error(cases[i].unit, st, &err, STATUS_INVALID, &cases[i].word, 1);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_files),   cmocka_unit_test(attention),
        cmocka_unit_test(wrong_values), cmocka_unit_test(wrong_documents),
        cmocka_unit_test(explosions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
