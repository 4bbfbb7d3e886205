/*
 * vqgan_checkpoint_test.c - tensors of the golden codecs and of our own writer by name; storages
 * that lie are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <zlib.h>

#include "model/test_folder.h"
#include "model/torch_write.h"
#include "model/vqgan_checkpoint.h"

#define GOLDEN(name) MGPT_SOURCE_DIR "/tests/golden/" name "/model/tokenizer"
#define BYTES(text)  text, sizeof(text) - 1

enum { ARCHIVE_BYTES_MAX = 8192, ENTRIES_MAX = 8 };

/* A zip of stored entries, as small as it can be. */
struct archive {
    unsigned char bytes[ARCHIVE_BYTES_MAX];
    size_t n_bytes;
    unsigned char directory[ARCHIVE_BYTES_MAX];
    size_t directory_bytes;
    int n_entries;
};

static void set(unsigned char *at, int width, uint64_t value)
{
    for (int i = 0; i < width; i++)
        at[i] = (unsigned char)(value >> (8 * i));
}

static void add_entry(struct archive *archive, const char *name, const void *data, size_t n)
{
    unsigned char *local = archive->bytes + archive->n_bytes;
    unsigned char *central = archive->directory + archive->directory_bytes;
    set(local, 4, 0x04034b50);
    set(local + 14, 4, crc32(0, data, (uInt)n));
    set(local + 18, 4, n);
    set(local + 22, 4, n);
    set(local + 26, 2, strlen(name));
    memcpy(local + 30, name, strlen(name));
    memcpy(local + 30 + strlen(name), data, n);
    set(central, 4, 0x02014b50);
    memcpy(central + 16, local + 14, 16);
    set(central + 42, 4, archive->n_bytes);
    memcpy(central + 46, name, strlen(name));
    archive->n_bytes += 30 + strlen(name) + n;
    archive->directory_bytes += 46 + strlen(name);
    archive->n_entries++;
}

static void close_archive(struct archive *archive)
{
    unsigned char *end = archive->bytes + archive->n_bytes + archive->directory_bytes;
    memcpy(archive->bytes + archive->n_bytes, archive->directory, archive->directory_bytes);
    set(end, 4, 0x06054b50);
    set(end + 8, 2, (uint64_t)archive->n_entries);
    set(end + 10, 2, (uint64_t)archive->n_entries);
    set(end + 12, 4, archive->directory_bytes);
    set(end + 16, 4, archive->n_bytes);
    archive->n_bytes += archive->directory_bytes + 22;
}

/* Four f32: 0 1 2 3, and a NaN behind them. */
static const float storage[5] = {0, 1, 2, 3, __builtin_nanf("")};

/* An archive whose state_dict has the one entry "t", the pickled value given. */
static enum status open_value(struct archive *archive, const char *value, size_t n_value,
                              struct vqgan_checkpoint **out, struct error *err)
{
    static const char head[] = "}U\x0astate_dict}U\1t", tail[] = "ss.";
    char pickle[1024];
    size_t n = sizeof(head) - 1;
    memset(archive, 0, sizeof(*archive));
    memcpy(pickle, head, n);
    memcpy(pickle + n, value, n_value);
    memcpy(pickle + n + n_value, tail, sizeof(tail) - 1);
    add_entry(archive, "any/data.pkl", pickle, n + n_value + sizeof(tail) - 1);
    add_entry(archive, "any/data/0", storage, 16);
    add_entry(archive, "any/data/nan", storage, 20);
    add_entry(archive, "any/data/odd", storage, 15);
    add_entry(archive, "any/data/half", "\x00\x3c\x00\xc0\x01\x00\xff\x7b", 8);
    add_entry(archive, "any/data/bf16", "\x80\x3f\x00\xc0\x7f\x7f\x01\x00", 8);
    close_archive(archive);
    return vqgan_checkpoint_open_memory(out, &(struct vqgan_config){.ch = 32}, archive->bytes,
                                        archive->n_bytes, "d/vqgan.ckpt", err);
}

#define STORAGE(type, key_length, key, n)                                                          \
    "(U\7storagectorch\n" type "\nU" key_length key "U\3cpu" n "tQ"
#define TENSOR(storage, offset, size, stride)                                                      \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset size stride "\x89"                       \
    "NtR"
#define F32_4 STORAGE("FloatStorage", "\1", "0", "K\4")

static const struct {
    const char *value;
    size_t n_value;
    float expected[4];
} readable[] = {
    {BYTES(TENSOR(F32_4, "K\0", "(K\2K\2t", "(K\2K\1t")), {0, 1, 2, 3}},
    {BYTES(TENSOR(F32_4, "K\0", "(K\2K\2t", "(K\1K\2t")), {0, 2, 1, 3}},
    {BYTES(TENSOR(F32_4, "K\1", "(K\2K\2t", "(K\0K\1t")), {1, 2, 1, 2}},
    {BYTES(TENSOR(F32_4, "K\3", "(K\2K\2t", "(K\0K\0t")), {3, 3, 3, 3}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\3", "nan", "K\5"), "K\0", "(K\2K\2t", "(K\2K\1t")),
     {0, 1, 2, 3}},
    {BYTES(TENSOR(STORAGE("HalfStorage", "\4", "half", "K\4"), "K\0", "(K\2K\2t", "(K\2K\1t")),
     {1, -2, 0x1p-24f, 65504}},
    {BYTES(TENSOR(STORAGE("BFloat16Storage", "\4", "bf16", "K\4"), "K\0", "(K\2K\2t", "(K\2K\1t")),
     {1, -2, 0x1.fep127f, 0x1p-133f}},
    {BYTES("ctorch._utils\n_rebuild_parameter\n(" TENSOR(F32_4, "K\0", "(K\2K\2t",
                                                         "(K\2K\1t") "\x88NtR"),
     {0, 1, 2, 3}},
};

static void readable_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(readable) / sizeof(readable[0]); i++) {
        struct archive archive;
        struct vqgan_checkpoint *checkpoint;
        struct error err = {0};
        float found[4];
        enum status st =
            open_value(&archive, readable[i].value, readable[i].n_value, &checkpoint, &err);
        if (st == STATUS_OK)
            st = vqgan_checkpoint_read(checkpoint, "t", 2, (int64_t[]){2, 2}, found, &err);
        if (st != STATUS_OK)
            print_error("case %zu: %s\n", i, err.text);
        assert_int_equal(st, STATUS_OK);
        assert_memory_equal(found, readable[i].expected, sizeof(found));
        vqgan_checkpoint_close(checkpoint);
    }
}

#define SHAPE_2X2 "(K\2K\2t(K\2K\1t"
#define HUGE_INT  "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"

static const struct {
    const char *value;
    size_t n_value;
    enum status status;
    const char *words[2];
} unreadable[] = {
    {BYTES("N"), STATUS_INVALID, {"found None", "expected a tensor"}},
    {BYTES("cposix\nsystem\nU\4true\x85R"), STATUS_INVALID, {"another class", "expected a tensor"}},
    {BYTES(TENSOR(F32_4, "K\0", "(K\4t", "(K\1t")),
     STATUS_INVALID,
     {"it is [4]", "expected [2, 2]"}},
    {BYTES(TENSOR(F32_4, "K\1", SHAPE_2X2, "")), STATUS_INVALID, {"past its storage of 4"}},
    {BYTES(TENSOR(F32_4, "K\0", "(K\2K\2t", "(K\3K\1t")),
     STATUS_INVALID,
     {"past its storage of 4"}},
    {BYTES(TENSOR(F32_4, HUGE_INT, SHAPE_2X2, "")), STATUS_INVALID, {"past its storage"}},
    {BYTES(TENSOR(F32_4, "K\0", "(K\2K\2t", "(" HUGE_INT "K\1t")),
     STATUS_INVALID,
     {"past its storage"}},
    {BYTES(TENSOR(F32_4, "K\0", "(K\2K\2t", "(" HUGE_INT HUGE_INT "t")),
     STATUS_INVALID,
     {"past its storage"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\1", "0", "K\5"), "K\0", SHAPE_2X2, "")),
     STATUS_INVALID,
     {"'any/data/0' has 16 bytes", "5 numbers of 4"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\1", "0", "K\3"), "K\0", SHAPE_2X2, "")),
     STATUS_INVALID,
     {"past its storage of 3"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\1", "0", HUGE_INT), "K\0", SHAPE_2X2, "")),
     STATUS_INVALID,
     {"'any/data/0' has 16 bytes"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\3", "odd", "K\4"), "K\0", SHAPE_2X2, "")),
     STATUS_INVALID,
     {"'any/data/odd' has 15 bytes"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\4", "none", "K\4"), "K\0", SHAPE_2X2, "")),
     STATUS_NOT_FOUND,
     {"no entry 'data/none'"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\x0b", "../data.pkl", "K\4"), "K\0", SHAPE_2X2, "")),
     STATUS_NOT_FOUND,
     {"no entry 'data/../data.pkl'"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\2", "0\0", "K\4"), "K\0", SHAPE_2X2, "")),
     STATUS_NOT_FOUND,
     {"no entry"}},
    {BYTES(TENSOR(STORAGE("DoubleStorage", "\1", "0", "K\4"), "K\0", SHAPE_2X2, "")),
     STATUS_UNSUPPORTED,
     {"DoubleStorage", "expected FloatStorage"}},
    {BYTES(TENSOR("(U\7storagecevil\nFloatStorage\nU\1"
                  "0U\3cpuK\4tQ",
                  "K\0", SHAPE_2X2, "")),
     STATUS_UNSUPPORTED,
     {"FloatStorage"}},
    {BYTES(TENSOR(STORAGE("FloatStorage", "\3", "nan", "K\5"), "K\1", SHAPE_2X2, "")),
     STATUS_INVALID,
     {"number 3 of 4", "not finite"}},
};

static void unreadable_tensors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(unreadable) / sizeof(unreadable[0]); i++) {
        struct archive archive;
        struct vqgan_checkpoint *checkpoint;
        struct error err = {0};
        float found[4];
        char what[32];
        snprintf(what, sizeof(what), "case %zu", i);
        assert_int_equal(
            open_value(&archive, unreadable[i].value, unreadable[i].n_value, &checkpoint, &err),
            STATUS_OK);
        enum status st = vqgan_checkpoint_read(checkpoint, "t", 2, (int64_t[]){2, 2}, found, &err);
        test_expect_error(what, st, &err, unreadable[i].status, unreadable[i].words, 2);
        assert_non_null(strstr(err.text, "'d/vqgan.ckpt': tensor 't'"));
        vqgan_checkpoint_close(checkpoint);
    }
}

static void golden_codecs(void **state)
{
    (void)state;
    static const struct {
        const char *folder;
        size_t n_entries;
        int64_t bias;      /* of decoder.conv_in */
        float first, last; /* of the codebook, as Python reads the archive */
    } cases[] = {{GOLDEN("v7b"), 210, 64, -0.22668415f, 0.167149f},
                 {GOLDEN("v34b"), 286, 32, 0.143161f, -0.0875569f}};
    float *values = malloc(8192 * 32 * sizeof(*values));
    for (int i = 0; i < 2; i++) {
        struct vqgan_checkpoint *checkpoint;
        struct error err = {0};
        enum status st = vqgan_checkpoint_open(&checkpoint, cases[i].folder, &err);
        if (st != STATUS_OK)
            print_error("%s\n", err.text);
        assert_int_equal(st, STATUS_OK);
        assert_int_equal(vqgan_checkpoint_count(checkpoint), cases[i].n_entries);
        assert_int_equal(vqgan_checkpoint_config(checkpoint)->n_embed, 8192);
        assert_true(vqgan_checkpoint_has(checkpoint, "loss.discriminator.unused.weight"));
        assert_false(vqgan_checkpoint_has(checkpoint, "best_model_score"));
        assert_int_equal(vqgan_checkpoint_read(checkpoint, "quantize.embedding.weight", 2,
                                               (int64_t[]){8192, 32}, values, &err),
                         STATUS_OK);
        assert_float_equal(values[0], cases[i].first, 1e-6);
        assert_float_equal(values[8192 * 32 - 1], cases[i].last, 1e-6);
        assert_int_equal(vqgan_checkpoint_read(checkpoint, "decoder.conv_in.bias", 1,
                                               &cases[i].bias, values, &err),
                         STATUS_OK);
        st = vqgan_checkpoint_read(checkpoint, "encoder.conv_in", 1, (int64_t[]){1}, values, &err);
        test_expect_error("no such tensor", st, &err, STATUS_NOT_FOUND,
                          (const char *[]){"vqgan.ckpt'", "'state_dict'", "'encoder.conv_in'"}, 3);
        vqgan_checkpoint_close(checkpoint);
    }
    free(values);
}

static void wrong_roots(void **state)
{
    (void)state;
    static const struct {
        const char *name, *pickle;
        const char *words[2];
    } cases[] = {
        {"a/data.pkl", "N.", {"holds None", "a dict with 'state_dict'"}},
        {"a/data.pkl", "}.", {"no 'state_dict'"}},
        {"a/data.pkl", "}U\x0astate_dictNs.", {"'state_dict' is None", "expected a dict"}},
        {"a/data.pkl", "}U\x0astate_dictcx\nC\n)Rs.", {"another class"}},
        {"a/data.pkl", "(((", {"data.pkl'", "without its stop"}},
        {"data.pkl", "}.", {"0 entries", "torch.save"}},
        {"a/b/data.pkl", "}.", {"0 entries"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct archive archive = {0};
        struct vqgan_checkpoint *checkpoint;
        struct error err = {0};
        add_entry(&archive, cases[i].name, cases[i].pickle, strlen(cases[i].pickle));
        close_archive(&archive);
        enum status st =
            vqgan_checkpoint_open_memory(&checkpoint, &(struct vqgan_config){0}, archive.bytes,
                                         archive.n_bytes, "vqgan.ckpt", &err);
        test_expect_error(cases[i].pickle, st, &err, STATUS_INVALID, cases[i].words, 2);
        assert_null(checkpoint);
    }
    struct archive archive = {0};
    struct vqgan_checkpoint *checkpoint;
    struct error err;
    add_entry(&archive, "a/data.pkl", "}.", 2);
    add_entry(&archive, "b/data.pkl", "}.", 2);
    close_archive(&archive);
    test_expect_error("two pickles",
                      vqgan_checkpoint_open_memory(&checkpoint, &(struct vqgan_config){0},
                                                   archive.bytes, archive.n_bytes, "x", &err),
                      &err, STATUS_INVALID, (const char *[]){"2 entries"}, 1);
    memset(&archive, 0, sizeof(archive));
    add_entry(&archive, "a/data.pkl", "}.", 2);
    add_entry(&archive, "a/byteorder", "big", 3);
    close_archive(&archive);
    test_expect_error("big endian",
                      vqgan_checkpoint_open_memory(&checkpoint, &(struct vqgan_config){0},
                                                   archive.bytes, archive.n_bytes, "x", &err),
                      &err, STATUS_UNSUPPORTED, (const char *[]){"byteorder", "'big'"}, 2);
}

static void written_and_read(void **state)
{
    (void)state;
    struct test_folder folder;
    struct torch_writer *writer;
    struct vqgan_checkpoint *checkpoint;
    struct error err = {0};
    const float values[6] = {1, -2, 3, -4, 5, -6};
    float found[6];
    test_folder_make(&folder);
    assert_int_equal(torch_writer_create(&writer, test_folder_path(&folder, "vqgan.ckpt"), &err),
                     STATUS_OK);
    assert_int_equal(torch_writer_add(writer, "a.weight", 2, (int64_t[]){2, 3}, values, &err),
                     STATUS_OK);
    assert_int_equal(torch_writer_add(writer, "a.bias", 1, (int64_t[]){1}, values, &err),
                     STATUS_OK);
    assert_int_equal(torch_writer_finish(writer, &err), STATUS_OK);
    torch_writer_destroy(writer);
    enum status st = vqgan_checkpoint_open(&checkpoint, folder.path, &err);
    test_expect_error("no sizes", st, &err, STATUS_NOT_FOUND,
                      (const char *[]){"vqgan.yaml", "no such file"}, 2);
    char *yaml = NULL;
    size_t n_yaml;
    FILE *golden = fopen(GOLDEN("v7b") "/vqgan.yaml", "rb");
    ssize_t got = getdelim(&yaml, &n_yaml, EOF, golden);
    fclose(golden);
    assert_true(got > 0);
    test_folder_write(&folder, "vqgan.yaml", yaml, (size_t)got);
    free(yaml);
    assert_int_equal(vqgan_checkpoint_open(&checkpoint, folder.path, &err), STATUS_OK);
    assert_int_equal(
        vqgan_checkpoint_read(checkpoint, "a.weight", 2, (int64_t[]){2, 3}, found, &err),
        STATUS_OK);
    assert_memory_equal(found, values, sizeof(found));
    vqgan_checkpoint_close(checkpoint);
    test_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readable_tensors), cmocka_unit_test(unreadable_tensors),
        cmocka_unit_test(golden_codecs),    cmocka_unit_test(wrong_roots),
        cmocka_unit_test(written_and_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
