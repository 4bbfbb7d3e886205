/*
 * checkpoint_test.c - a folder is one table of tensors, or it is refused with the file at fault;
 * units and digest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/checkpoint_units.h"
#include "model/safetensors_write.h"
#include "model/test_folder.h"

#define GOLDEN MGPT_SOURCE_DIR "/tests/golden/"

static const char config_text[] = "{\"model_type\":\"chameleon\",\"hidden_size\":8,\"intermediate_"
                                  "size\":12,\"num_hidden_layers\":1,"
                                  "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_"
                                  "size\":10,\"max_position_embeddings\":64}";

/* All tensors config_text asks for. */
static const struct {
    const char *name;
    int rank;
    int64_t shape[2];
} tiny[] = {
    {"model.embed_tokens.weight", 2, {10, 8}},
    {"model.layers.0.input_layernorm.weight", 1, {8}},
    {"model.layers.0.post_attention_layernorm.weight", 1, {8}},
    {"model.layers.0.self_attn.q_proj.weight", 2, {8, 8}},
    {"model.layers.0.self_attn.k_proj.weight", 2, {4, 8}},
    {"model.layers.0.self_attn.v_proj.weight", 2, {4, 8}},
    {"model.layers.0.self_attn.o_proj.weight", 2, {8, 8}},
    {"model.layers.0.self_attn.q_norm.weight", 2, {1, 4}},
    {"model.layers.0.self_attn.q_norm.bias", 2, {1, 4}},
    {"model.layers.0.self_attn.k_norm.weight", 2, {1, 4}},
    {"model.layers.0.self_attn.k_norm.bias", 2, {1, 4}},
    {"model.layers.0.mlp.gate_proj.weight", 2, {12, 8}},
    {"model.layers.0.mlp.up_proj.weight", 2, {12, 8}},
    {"model.layers.0.mlp.down_proj.weight", 2, {8, 12}},
    {"model.norm.weight", 1, {8}},
    {"lm_head.weight", 2, {10, 8}},
};

enum { N_TINY = sizeof(tiny) / sizeof(tiny[0]), N_DATA = 256 };

static float data[N_DATA];

struct change {
    const char *name; /* of the tensor at fault */
    int64_t shape[2]; /* its shape then; {0} leaves it out */
};

/* Tensors first..last of `tiny` in one file, as `dtype`. */
static void write_part(struct test_folder *folder, const char *file, int first, int last,
                       enum dtype dtype, const struct change *change)
{
    struct safetensors_output outputs[N_TINY];
    struct error err = {0};
    int n = 0;
    for (int i = first; i <= last; i++) {
        bool changed = change && strcmp(change->name, tiny[i].name) == 0;
        const int64_t *shape = changed ? change->shape : tiny[i].shape;
        if (shape[0] == 0)
            continue;
        outputs[n++] = (struct safetensors_output){.name = tiny[i].name,
                                                   .dtype = dtype,
                                                   .rank = shape[1] ? 2 : 1,
                                                   .shape = {shape[0], shape[1]},
                                                   .data = data};
    }
    enum status st = safetensors_write(test_folder_path(folder, file), outputs, n, &err);
    if (st != STATUS_OK)
        print_error("%s\n", err.text);
    assert_int_equal(st, STATUS_OK);
}

static void make_tiny(struct test_folder *folder, enum dtype dtype, const struct change *change)
{
    test_folder_make(folder);
    for (int i = 0; i < N_DATA; i++)
        data[i] = 0.5f + (float)i / 512;
    test_folder_write_text(folder, "config.json", config_text);
    write_part(folder, "model.safetensors", 0, N_TINY - 1, dtype, change);
}

static enum status open_and_check(struct test_folder *folder, struct error *err)
{
    struct checkpoint *checkpoint;
    enum status st = checkpoint_open(&checkpoint, folder->path, err);
    if (st != STATUS_OK) {
        assert_null(checkpoint);
        return st;
    }
    st = checkpoint_check_units(checkpoint, err);
    checkpoint_close(checkpoint);
    return st;
}

static void golden_folders(void **state)
{
    (void)state;
    static const char *const folders[] = {GOLDEN "v7b/model", GOLDEN "v34b/model"};
    for (int i = 0; i < 2; i++) {
        struct checkpoint *checkpoint;
        struct error err = {0};
        struct attention_tensors attention;
        struct feed_forward_tensors feed_forward;
        assert_int_equal(checkpoint_open(&checkpoint, folders[i], &err), STATUS_OK);
        assert_int_equal(checkpoint_check_units(checkpoint, &err), STATUS_OK);
        const struct model_config *c = checkpoint_config(checkpoint);
        assert_int_equal(checkpoint_find_attention(checkpoint, c->n_layers - 1, &attention, &err),
                         STATUS_OK);
        assert_int_equal(attention.q_norm.n_rows, c->model_parallel_size);
        assert_int_equal(attention.k.weight.dtype, DTYPE_BF16);
        assert_null(attention.k.bias.data);
        assert_int_equal(
            checkpoint_find_feed_forward(checkpoint, c->n_layers - 1, &feed_forward, &err),
            STATUS_OK);
        assert_int_equal(tensor_check_finite(&feed_forward.down.weight, &err), STATUS_OK);
        test_expect_error(
            "past the last", checkpoint_find_attention(checkpoint, c->n_layers, &attention, &err),
            &err, STATUS_NOT_FOUND, (const char *[]){"index.json", "input_layernorm"}, 2);
        assert_true(checkpoint_has(checkpoint, "lm_head.weight"));
        assert_false(checkpoint_has(checkpoint, "lm_head"));
        size_t total = 0, bytes;
        int n_units = units_count(c->n_layers);
        for (int unit = 0; unit < n_units; unit++) {
            assert_int_equal(checkpoint_unit_bytes(checkpoint, unit, &bytes, &err), STATUS_OK);
            total += bytes;
        }
        assert_int_equal(total, i == 0 ? 3024512 : 5115840); /* total_size of their indices */
        assert_int_equal(checkpoint_unit_bytes(checkpoint, n_units, &bytes, &err), STATUS_INVALID);
        assert_int_equal(checkpoint_unit_bytes(checkpoint, -1, &bytes, &err), STATUS_INVALID);
        checkpoint_close(checkpoint);
    }
}

static void all_dtypes(void **state)
{
    (void)state;
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    for (int i = 0; i < 3; i++) {
        struct test_folder folder;
        struct checkpoint *checkpoint;
        struct tensor_view view;
        struct error err = {0};
        make_tiny(&folder, dtypes[i], NULL);
        assert_int_equal(checkpoint_open(&checkpoint, folder.path, &err), STATUS_OK);
        assert_int_equal(checkpoint_check_units(checkpoint, &err), STATUS_OK);
        assert_int_equal(checkpoint_find_embedding(checkpoint, &view, &err), STATUS_OK);
        assert_int_equal(view.dtype, dtypes[i]);
        assert_int_equal(view.bytes, 80 * dtype_bytes(dtypes[i]));
        assert_memory_equal(view.data, data, view.bytes);
        checkpoint_close(checkpoint);
        test_folder_remove(&folder);
    }
}

/* Older and newer files: a row of q_norm for each part, or for each head. */
static void head_norm_rows(void **state)
{
    (void)state;
    static const struct {
        int64_t rows;
        enum status status;
    } cases[] = {{1, STATUS_OK}, {2, STATUS_OK}, {3, STATUS_INVALID}};
    for (size_t i = 0; i < 3; i++) {
        struct test_folder folder;
        struct error err = {0};
        make_tiny(&folder, DTYPE_F32, NULL);
        struct safetensors_output outputs[N_TINY];
        for (int k = 0; k < N_TINY; k++) {
            bool is_q_norm = strstr(tiny[k].name, "q_norm") != NULL;
            outputs[k] = (struct safetensors_output){
                .name = tiny[k].name, .rank = tiny[k].rank, .data = data};
            outputs[k].shape[0] = is_q_norm ? cases[i].rows : tiny[k].shape[0];
            outputs[k].shape[1] = tiny[k].shape[1];
        }
        assert_int_equal(safetensors_write(test_folder_path(&folder, "model.safetensors"), outputs,
                                           N_TINY, &err),
                         STATUS_OK);
        enum status st = open_and_check(&folder, &err);
        assert_int_equal(st, cases[i].status);
        if (st != STATUS_OK)
            assert_non_null(
                strstr(err.text, "q_norm.weight' is [3, 4], expected [1, 4] or [2, 4]"));
        test_folder_remove(&folder);
    }
}

static void wrong_shapes(void **state)
{
    (void)state;
    static const struct {
        struct change change;
        const char *words[3];
    } cases[] = {
        {{"model.embed_tokens.weight", {8, 10}},
         {"'model.embed_tokens.weight'", "[8, 10]", "expected [10, 8]"}},
        {{"model.layers.0.self_attn.k_proj.weight", {8, 8}},
         {"k_proj", "[8, 8]", "expected [4, 8]"}},
        {{"model.layers.0.mlp.down_proj.weight", {12, 8}},
         {"down_proj", "[12, 8]", "expected [8, 12]"}},
        {{"model.norm.weight", {8, 1}}, {"'model.norm.weight'", "[8, 1]", "expected [8]"}},
        {{"model.layers.0.self_attn.q_norm.bias", {2, 4}},
         {"q_norm.bias", "[2, 4]", "expected [1, 4]"}},
        {{"lm_head.weight", {9, 8}}, {"'lm_head.weight'", "[9, 8]", "expected [10, 8]"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct test_folder folder;
        struct error err;
        make_tiny(&folder, DTYPE_BF16, &cases[i].change);
        enum status st = open_and_check(&folder, &err);
        test_expect_error(cases[i].change.name, st, &err, STATUS_INVALID, cases[i].words, 3);
        assert_non_null(strstr(err.text, "model.safetensors'"));
        test_folder_remove(&folder);
    }
}

/* Any tensor may be the one that is missing. */
static void missing_tensors(void **state)
{
    (void)state;
    for (int i = 0; i < N_TINY; i++) {
        struct test_folder folder;
        struct error err;
        struct change change = {tiny[i].name, {0, 0}};
        make_tiny(&folder, DTYPE_BF16, &change);
        enum status st = open_and_check(&folder, &err);
        test_expect_error(tiny[i].name, st, &err, STATUS_NOT_FOUND,
                          (const char *[]){tiny[i].name, "model.safetensors"}, 2);
        test_folder_remove(&folder);
    }
}

/* An index of the two shards a (tensors 0..7) and b (the rest); `place` is where it puts the last
 * tensor of a. */
static void write_index(struct test_folder *folder, const char *a, const char *b, const char *place,
                        const char *extra)
{
    char text[4096];
    int n = snprintf(text, sizeof(text), "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < N_TINY; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%s\"%s\":\"%s\"", i ? "," : "",
                      tiny[i].name,
                      i < 7    ? a
                      : i == 7 ? place
                               : b);
    snprintf(text + n, sizeof(text) - (size_t)n, "%s}}", extra);
    test_folder_write_text(folder, "model.safetensors.index.json", text);
}

static void make_shards(struct test_folder *folder)
{
    make_tiny(folder, DTYPE_BF16, NULL);
    assert_int_equal(unlink(test_folder_path(folder, "model.safetensors")), 0);
    write_part(folder, "a.safetensors", 0, 7, DTYPE_BF16, NULL);
    write_part(folder, "b.safetensors", 8, N_TINY - 1, DTYPE_BF16, NULL);
}

static const struct {
    const char *a, *b, *place, *extra;
    enum status status;
    const char *words[3];
} index_cases[] = {
    {"a.safetensors", "b.safetensors", "a.safetensors", "", STATUS_OK, {0}},
    {"a.safetensors",
     "b.safetensors",
     "a.safetensors",
     ",\"model.vqmodel.x\":\"a.safetensors\"",
     STATUS_OK,
     {0}},
    {"a.safetensors",
     "b.safetensors",
     "b.safetensors",
     "",
     STATUS_INVALID,
     {"'model.layers.0.self_attn.q_norm.weight'", "'b.safetensors'", "it is in 'a.safetensors'"}},
    {"a.safetensors",
     "c.safetensors",
     "a.safetensors",
     "",
     STATUS_NOT_FOUND,
     {"index.json", "'c.safetensors'", "no such file"}},
    {"../a.safetensors",
     "b.safetensors",
     "a.safetensors",
     "",
     STATUS_INVALID,
     {"index.json", "'../a.safetensors'", "same folder"}},
    {"/etc/a.safetensors",
     "b.safetensors",
     "a.safetensors",
     "",
     STATUS_INVALID,
     {"'/etc/a.safetensors'", "same folder"}},
    {"sub/a.safetensors",
     "b.safetensors",
     "a.safetensors",
     "",
     STATUS_INVALID,
     {"'sub/a.safetensors'"}},
    {"..", "b.safetensors", "a.safetensors", "", STATUS_INVALID, {"'..'"}},
    {"", "b.safetensors", "a.safetensors", "", STATUS_INVALID, {"the string ''"}},
    {"a.bin", "b.safetensors", "a.safetensors", "", STATUS_INVALID, {"'a.bin'", ".safetensors"}},
    {"config.json", "b.safetensors", "a.safetensors", "", STATUS_INVALID, {"'config.json'"}},
    {"a.safetensors",
     "b.safetensors",
     "a.safetensors",
     ",\"more\":\"b.safetensors\"",
     STATUS_NOT_FOUND,
     {"b.safetensors' has no tensor 'more'", "index.json"}},
    {"a.safetensors",
     "b.safetensors",
     "a.safetensors",
     ",\"more\":7",
     STATUS_INVALID,
     {"'more'", "7"}},
    {"a.safetensors",
     "b.safetensors",
     "a.safetensors",
     ",\"lm_head.weight\":\"a.safetensors\"",
     STATUS_INVALID,
     {"index.json", "duplicate"}},
};

static void wrong_indices(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(index_cases) / sizeof(index_cases[0]); i++) {
        struct test_folder folder;
        struct error err = {0};
        make_shards(&folder);
        write_index(&folder, index_cases[i].a, index_cases[i].b, index_cases[i].place,
                    index_cases[i].extra);
        enum status st = open_and_check(&folder, &err);
        test_expect_error(index_cases[i].a, st, &err, index_cases[i].status, index_cases[i].words,
                          3);
        test_folder_remove(&folder);
    }
}

static void index_texts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *word;
    } cases[] = {
        {"", "no JSON"},
        {"[]", "an array"},
        {"{}", "'weight_map' is missing"},
        {"{\"weight_map\":[]}", "'weight_map' is an array"},
        {"{\"weight_map\":{\"x\":null}}", "'x' is placed in null"},
        {"{\"weight_map\":{}}", "names no tensor 'model.embed_tokens.weight'"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct test_folder folder;
        struct error err;
        make_shards(&folder);
        test_folder_write_text(&folder, "model.safetensors.index.json", cases[i].text);
        enum status st = open_and_check(&folder, &err);
        test_expect_error(cases[i].text, st, &err, i == 5 ? STATUS_NOT_FOUND : STATUS_INVALID,
                          (const char *[]){"index.json", cases[i].word}, 2);
        test_folder_remove(&folder);
    }
}

static void doubled_and_unnamed(void **state)
{
    (void)state;
    struct test_folder folder;
    struct error err;
    make_shards(&folder);
    write_index(&folder, "a.safetensors", "b.safetensors", "a.safetensors", "");
    write_part(&folder, "b.safetensors", 7, N_TINY - 1, DTYPE_BF16, NULL);
    test_expect_error("doubled", open_and_check(&folder, &err), &err, STATUS_INVALID,
                      (const char *[]){"q_norm.weight'", "a.safetensors'", "b.safetensors'"}, 3);
    write_part(&folder, "a.safetensors", 0, 6, DTYPE_BF16, NULL);
    test_expect_error("elsewhere", open_and_check(&folder, &err), &err, STATUS_INVALID,
                      (const char *[]){"places tensor", "q_norm.weight'", "'b.safetensors'"}, 3);
    struct safetensors_output more = {.name = "more", .rank = 1, .shape = {1}, .data = data};
    write_part(&folder, "a.safetensors", 0, 7, DTYPE_BF16, NULL);
    write_part(&folder, "b.safetensors", 8, N_TINY - 1, DTYPE_BF16, NULL);
    assert_int_equal(safetensors_write(test_folder_path(&folder, "c.safetensors"), &more, 1, &err),
                     STATUS_OK);
    write_index(&folder, "a.safetensors", "b.safetensors", "a.safetensors",
                ",\"model.vqmodel.x\":\"c.safetensors\"");
    test_expect_error("unnamed", open_and_check(&folder, &err), &err, STATUS_INVALID,
                      (const char *[]){"index.json", "does not name", "'more'"}, 3);
    test_folder_remove(&folder);
}

/* The codec's tensors may lie in the shards, may be doubled and of any type: they are not looked
 * at. */
static void codec_tensors_ignored(void **state)
{
    (void)state;
    struct test_folder folder;
    struct checkpoint *checkpoint;
    struct error err = {0};
    struct safetensors_output codec = {
        .name = "model.vqmodel.x", .rank = 1, .shape = {1}, .data = data};
    make_shards(&folder);
    assert_int_equal(safetensors_write(test_folder_path(&folder, "c.safetensors"), &codec, 1, &err),
                     STATUS_OK);
    assert_int_equal(safetensors_write(test_folder_path(&folder, "d.safetensors"), &codec, 1, &err),
                     STATUS_OK);
    write_index(&folder, "a.safetensors", "b.safetensors", "a.safetensors",
                ",\"model.vqmodel.x\":\"c.safetensors\",\"model.vqmodel.y\":\"d.safetensors\"");
    assert_int_equal(checkpoint_open(&checkpoint, folder.path, &err), STATUS_OK);
    assert_false(checkpoint_has(checkpoint, "model.vqmodel.x"));
    checkpoint_close(checkpoint);
    test_folder_remove(&folder);
}

/* Links are followed as far as a regular file; the link of a download cache points out of the
 * folder. */
static void links(void **state)
{
    (void)state;
    struct test_folder cache, folder;
    struct error err;
    make_shards(&folder);
    test_folder_make(&cache);
    write_part(&cache, "blob", 0, 7, DTYPE_BF16, NULL);
    write_index(&folder, "a.safetensors", "b.safetensors", "a.safetensors", "");
    const char *a = test_folder_path(&folder, "a.safetensors");
    assert_int_equal(unlink(a), 0);
    assert_int_equal(symlink(test_folder_path(&cache, "blob"), a), 0);
    assert_int_equal(open_and_check(&folder, &err), STATUS_OK);
    assert_int_equal(unlink(a), 0);
    assert_int_equal(symlink("/dev/zero", a), 0);
    test_expect_error("device", open_and_check(&folder, &err), &err, STATUS_INVALID,
                      (const char *[]){"a.safetensors'", "regular file"}, 2);
    assert_int_equal(unlink(a), 0);
    assert_int_equal(symlink(a, a), 0);
    assert_int_equal(open_and_check(&folder, &err), STATUS_IO);
    test_folder_remove(&folder);
    test_folder_remove(&cache);
}

static void missing_files(void **state)
{
    (void)state;
    struct test_folder folder;
    struct error err;
    test_folder_make(&folder);
    test_expect_error("empty", open_and_check(&folder, &err), &err, STATUS_NOT_FOUND,
                      (const char *[]){"config.json", "no such file"}, 2);
    test_folder_write_text(&folder, "config.json", config_text);
    test_expect_error("no weights", open_and_check(&folder, &err), &err, STATUS_NOT_FOUND,
                      (const char *[]){"model.safetensors", "index.json"}, 2);
    assert_int_equal(symlink("gone", test_folder_path(&folder, "model.safetensors")), 0);
    test_expect_error("dangling link", open_and_check(&folder, &err), &err, STATUS_NOT_FOUND,
                      (const char *[]){"cannot open", "model.safetensors'"}, 2);
    assert_int_equal(unlink(folder.joined), 0);
    test_folder_write_text(&folder, "pytorch_model.bin", "");
    test_expect_error("torch weights", open_and_check(&folder, &err), &err, STATUS_NOT_FOUND,
                      (const char *[]){"pytorch_model", "safetensors"}, 2);
    test_folder_remove(&folder);
    test_expect_error("no folder", open_and_check(&folder, &err), &err, STATUS_NOT_FOUND,
                      (const char *[]){folder.path}, 1);
}

/* A header of odd length puts the data off its alignment: find gives an aligned copy, and again
 * after a drop. */
static void unaligned(void **state)
{
    (void)state;
    struct test_folder folder;
    struct checkpoint *checkpoint;
    struct tensor_view view;
    struct error err = {0};
    char file[128] = {0};
    const char *header = "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} ";
    size_t length = strlen(header) | 1;
    make_tiny(&folder, DTYPE_BF16, NULL);
    memset(file + 8, ' ', length);
    file[0] = (char)length;
    memcpy(file + 8, header, strlen(header));
    memcpy(file + 8 + length, data, 8);
    test_folder_write(&folder, "model.safetensors", file, 8 + length + 8);
    assert_int_equal(checkpoint_open(&checkpoint, folder.path, &err), STATUS_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(checkpoint_find(checkpoint, "x", &view, &err), STATUS_OK);
        assert_int_equal((uintptr_t)view.data % sizeof(float), 0);
        assert_memory_equal(view.data, data, 8);
        checkpoint_drop_pages(checkpoint);
    }
    checkpoint_close(checkpoint);
    test_folder_remove(&folder);
}

static void digest_of(const char *folder, int first, int last,
                      unsigned char digest[CHECKPOINT_DIGEST_BYTES])
{
    struct checkpoint *checkpoint;
    struct error err = {0};
    assert_int_equal(checkpoint_open(&checkpoint, folder, &err), STATUS_OK);
    assert_int_equal(checkpoint_digest(checkpoint, first, last, digest, &err), STATUS_OK);
    checkpoint_close(checkpoint);
}

/* The digest follows config and bytes of the units asked for, and nothing else. */
static void digests(void **state)
{
    (void)state;
    struct test_folder folder;
    unsigned char whole[CHECKPOINT_DIGEST_BYTES], again[CHECKPOINT_DIGEST_BYTES],
        part[CHECKPOINT_DIGEST_BYTES];
    make_tiny(&folder, DTYPE_BF16, NULL);
    digest_of(folder.path, 0, 3, whole);
    digest_of(folder.path, 0, 2, part);
    assert_memory_not_equal(whole, part, sizeof(whole));
    digest_of(folder.path, 1, 1, part); /* the two halves of a layer */
    digest_of(folder.path, 2, 2, again);
    assert_memory_not_equal(part, again, sizeof(part));
    /* The same bytes in shards. */
    assert_int_equal(unlink(test_folder_path(&folder, "model.safetensors")), 0);
    write_part(&folder, "a.safetensors", 0, 7, DTYPE_BF16, NULL);
    write_part(&folder, "b.safetensors", 8, N_TINY - 1, DTYPE_BF16, NULL);
    write_index(&folder, "a.safetensors", "b.safetensors", "a.safetensors", "");
    digest_of(folder.path, 0, 3, again);
    assert_memory_equal(whole, again, sizeof(whole));
    /* Other bytes in the second half: unit 0 keeps its digest, the whole changes. */
    unsigned char embedding[CHECKPOINT_DIGEST_BYTES];
    digest_of(folder.path, 0, 0, embedding);
    data[0] += 1;
    write_part(&folder, "b.safetensors", 8, N_TINY - 1, DTYPE_BF16, NULL);
    digest_of(folder.path, 0, 0, again);
    assert_memory_equal(embedding, again, sizeof(again));
    digest_of(folder.path, 0, 3, again);
    assert_memory_not_equal(whole, again, sizeof(again));
    /* Another configuration. */
    char text[512];
    snprintf(text, sizeof(text), "%.*s,\"rope_theta\":20000}", (int)strlen(config_text) - 1,
             config_text);
    test_folder_write_text(&folder, "config.json", text);
    digest_of(folder.path, 0, 0, again);
    assert_memory_not_equal(embedding, again, sizeof(again));
    test_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_folders),
        cmocka_unit_test(all_dtypes),
        cmocka_unit_test(head_norm_rows),
        cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(missing_tensors),
        cmocka_unit_test(wrong_indices),
        cmocka_unit_test(index_texts),
        cmocka_unit_test(doubled_and_unnamed),
        cmocka_unit_test(codec_tensors_ignored),
        cmocka_unit_test(links),
        cmocka_unit_test(missing_files),
        cmocka_unit_test(unaligned),
        cmocka_unit_test(digests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
