/*
 * pickle_test.c - hostile pickles are refused or become inert; nothing named in one is ever looked
 * up or called.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/pickle.h"
#include "model/test_folder.h"

/* A literal with NUL bytes in it, and its length. */
#define BYTES(text) text, sizeof(text) - 1

static struct pickle *parse(const void *bytes, size_t n_bytes)
{
    struct pickle *pickle;
    struct error err = {0};
    enum status st = pickle_parse(&pickle, bytes, n_bytes, "data.pkl", &err);
    if (st != STATUS_OK)
        print_error("%s\n", err.text);
    assert_int_equal(st, STATUS_OK);
    return pickle;
}

/* What would run under Python is a value without content here. */
static const struct {
    const char *bytes;
    size_t n_bytes;
    enum pickle_kind kind;
} inert[] = {
    {BYTES("cposix\nsystem\n(S'touch /tmp/x'\ntR."), PICKLE_INERT},
    {BYTES("\x80\x02"
           "cposix\nsystem\nX\x04\0\0\0true\x85R."),
     PICKLE_INERT},
    {BYTES("\x80\x04\x8c\x08"
           "builtins\x8c\x04"
           "eval\x93\x8c\x01"
           "1\x85R."),
     PICKLE_INERT},
    {BYTES("cbuiltins\nexec\n."), PICKLE_GLOBAL},
    {BYTES("(S'x'\nios\nsystem\n."), PICKLE_INERT},
    {BYTES("(cos\nsystem\nS'x'\no."), PICKLE_INERT},
    {BYTES("cx\nC\n)\x81}(X\x01\0\0\0aNub."), PICKLE_INERT},
    {BYTES("cx\nC\n)}\x92."), PICKLE_INERT},
    {BYTES("cx\nC\n)R(NNu(NNe."), PICKLE_INERT},
    {BYTES("X\x02\0\0\0idQ."), PICKLE_INERT},
    {BYTES("Psome id\n."), PICKLE_INERT},
    {BYTES("\x82\x01."), PICKLE_INERT},
    {BYTES("\x84\xff\xff\xff\xff."), PICKLE_INERT},
    {BYTES("\x8f(NN\x90."), PICKLE_INERT},
    {BYTES("(NN\x91."), PICKLE_INERT},
    {BYTES("B\x02\0\0\0ab."), PICKLE_INERT},
    {BYTES("\x96\x02\0\0\0\0\0\0\0ab."), PICKLE_INERT},
    {BYTES("\x97\x98."), PICKLE_INERT},
    {BYTES("NNR."), PICKLE_INERT},
    {BYTES("]NR."), PICKLE_INERT},
    {BYTES("G\0\0\0\0\0\0\0\0."), PICKLE_INERT},
    {BYTES("F1.5\n."), PICKLE_INERT},
    {BYTES("V\\u0041\n."), PICKLE_INERT},
    {BYTES("\x8a\x09\1\1\1\1\1\1\1\1\1."), PICKLE_INERT},
    {BYTES("L99999999999999999999L\n."), PICKLE_INERT},
    {BYTES("ccollections\nOrderedDict\n)R}b."), PICKLE_DICT},
    {BYTES("ccollections\nOrderedDict\n(NtR."), PICKLE_DICT},
    {BYTES("ctorch._utils\n_rebuild_tensor_v2\n)R."), PICKLE_TENSOR},
    {BYTES("ctorch._utils\n_rebuild_parameter\n((K\1tK\2NtR."), PICKLE_TUPLE},
    {BYTES("ctorch._utils\n_rebuild_parameter\n)R."), PICKLE_INERT},
};

static void nothing_is_called(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(inert) / sizeof(inert[0]); i++) {
        struct pickle *pickle = parse(inert[i].bytes, inert[i].n_bytes);
        if (pickle_kind(pickle, pickle_root(pickle)) != inert[i].kind)
            print_error("case %zu is %s\n", i,
                        pickle_kind_name(pickle_kind(pickle, pickle_root(pickle))));
        assert_int_equal(pickle_kind(pickle, pickle_root(pickle)), inert[i].kind);
        pickle_destroy(pickle);
    }
}

static const struct {
    const char *bytes;
    size_t n_bytes;
    const char *words[2];
} refused[] = {
    {BYTES(""), {"without its stop"}},
    {BYTES("N"), {"without its stop"}},
    {BYTES("."), {"too few values"}},
    {BYTES("(."), {"too few values"}},
    {BYTES("\xff"), {"byte 1, operation 0xff", "no such operation"}},
    {BYTES("\0"), {"operation 0x00"}},
    {BYTES("R."), {"operation 0x52", "too few"}},
    {BYTES("NR."), {"operation 0x52", "too few"}},
    {BYTES("N(NR."), {"operation 0x52", "too few"}},
    {BYTES("b."), {"too few"}},
    {BYTES("Q."), {"too few"}},
    {BYTES("\x93."), {"too few"}},
    {BYTES("\x81."), {"too few"}},
    {BYTES("N\x92."), {"too few"}},
    {BYTES("0."), {"too few"}},
    {BYTES("2."), {"too few"}},
    {BYTES("q\0."), {"too few"}},
    {BYTES("\x94."), {"too few"}},
    {BYTES("\x87."), {"too few"}},
    {BYTES("t."), {"no mark"}},
    {BYTES("u."), {"no mark"}},
    {BYTES("\x91."), {"no mark"}},
    {BYTES("1."), {"no mark"}},
    {BYTES("a."), {"nothing stands below"}},
    {BYTES("Na."), {"nothing stands below"}},
    {BYTES("N(Na."), {"nothing stands below"}},
    {BYTES("NN(s."), {"nothing stands below"}},
    {BYTES("(NNu."), {"nothing stands below"}},
    {BYTES("}(Nu."), {"no value"}},
    {BYTES("(Nd."), {"no value"}},
    {BYTES("N(NNu."), {"holds none"}},
    {BYTES("](NNu."), {"holds none"}},
    {BYTES("}Na."), {"holds none"}},
    {BYTES(")(NNe."), {"holds none"}},
    {BYTES("h\0."), {"nothing at this index"}},
    {BYTES("Nq\1h\0."), {"nothing at this index"}},
    {BYTES("j\xff\xff\xff\xff."), {"nothing at this index"}},
    {BYTES("Nr\0\0\x10\0."), {"memo index"}},
    {BYTES("Nr\xff\xff\xff\xff."), {"memo index"}},
    {BYTES("Np-1\n."), {"memo index"}},
    {BYTES("Np99999999999999999999\n."), {"memo index"}},
    {BYTES("Npx\n."), {"memo index"}},
    {BYTES("X\xff\xff\xff\xff"
           "abc."),
     {"past the end"}},
    {BYTES("X\x01\0\0"), {"ends inside"}},
    {BYTES("\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), {"past the end"}},
    {BYTES("\x8e\0\0\0\0\0\0\0\x80."), {"past the end"}},
    {BYTES("\x8b\xff\xff\xff\xff."), {"past the end"}},
    {BYTES("U\x05"
           "abc."),
     {"past the end"}},
    {BYTES("K"), {"ends inside"}},
    {BYTES("J\1\2\3"), {"ends inside"}},
    {BYTES("\x80"), {"ends inside"}},
    {BYTES("\x95\1\2"), {"ends inside"}},
    {BYTES("cmodule\nname"), {"no end"}},
    {BYTES("cmodule"), {"no end"}},
    {BYTES("Sabc\n."), {"no quotes"}},
    {BYTES("S'\n."), {"no quotes"}},
    {BYTES("I12"), {"no end"}},
    {BYTES("\x80\x06N."), {"protocol", "at most 5"}},
    {BYTES("N.."), {"1 bytes behind its stop"}},
};

static void refused_pickles(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct pickle *pickle;
        struct error err = {0};
        char what[32], *exact = malloc(refused[i].n_bytes + 1);
        memcpy(exact, refused[i].bytes, refused[i].n_bytes);
        snprintf(what, sizeof(what), "case %zu", i);
        enum status st = pickle_parse(&pickle, exact, refused[i].n_bytes, "x: data.pkl", &err);
        test_expect_error(what, st, &err, STATUS_INVALID, refused[i].words, 2);
        assert_non_null(strstr(err.text, "'x: data.pkl'"));
        assert_null(pickle);
        free(exact);
    }
}

/* `unit` over and over, n bytes in all, then a stop. */
static enum status parse_repeated(const char *unit, size_t n, struct error *err)
{
    struct pickle *pickle;
    char *bytes = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = unit[i % strlen(unit)];
    bytes[n] = '.';
    enum status st = pickle_parse(&pickle, bytes, n + 1, "x", err);
    pickle_destroy(pickle);
    free(bytes);
    return st;
}

static void bombs(void **state)
{
    (void)state;
    static const struct {
        const char *unit;
        size_t n_pass, n_fail; /* 0: not tried */
        const char *word;
    } cases[] = {
        {"N", PICKLE_STACK_MAX, PICKLE_STACK_MAX + 1, "stack is full"},
        {"]", PICKLE_STACK_MAX, 10 * PICKLE_STACK_MAX, "stack is full"},
        {"N2", 2 * 30000, 2 * PICKLE_STACK_MAX, "stack is full"},
        {"(", 0, PICKLE_DEPTH_MAX + 1, "nested too deeply"},
        {"]]a", 0, 3 * PICKLE_STACK_MAX, "stack is full"},
        {"N0", 0, PICKLE_OPS_MAX + 2, "too many operations"},
        {"}0", 0, PICKLE_OPS_MAX + 2, "too many operations"},
        {")0", 0, PICKLE_OPS_MAX + 2, "too many operations"},
        {"\x98", 0, PICKLE_OPS_MAX + 2, "too many operations"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        if (cases[i].n_pass)
            assert_int_equal(parse_repeated(cases[i].unit, cases[i].n_pass, &err), STATUS_OK);
        enum status st = parse_repeated(cases[i].unit, cases[i].n_fail, &err);
        test_expect_error(cases[i].unit, st, &err, STATUS_INVALID, &cases[i].word, 1);
    }
    struct pickle *pickle;
    struct error err;
    assert_int_equal(pickle_parse(&pickle, "", (size_t)PICKLE_BYTES_MAX + 1, "x", &err),
                     STATUS_INVALID);
}

/* A list of itself, doubled thirty times over: shared, not copied. */
static void sharing(void **state)
{
    (void)state;
    char bytes[300] = "]q\0";
    size_t n = 3;
    for (int i = 0; i < 30; i++) {
        memcpy(bytes + n, "]q\0h\0ah\0a", 9);
        bytes[n + 2] = (char)(i + 1);
        bytes[n + 4] = bytes[n + 7] = (char)i;
        n += 9;
    }
    bytes[n++] = '.';
    struct pickle *pickle;
    assert_int_equal(pickle_parse(&pickle, bytes, n, "x", NULL), STATUS_OK);
    assert_int_equal(pickle_count(pickle, pickle_root(pickle)), 2);
    pickle_destroy(pickle);
    /* A list that holds itself ends like any other. */
    pickle = parse(BYTES("]q\0h\0a."));
    assert_int_equal(pickle_item(pickle, pickle_root(pickle), 0), pickle_root(pickle));
    pickle_destroy(pickle);
}

static void integers(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        int64_t value;
    } cases[] = {
        {BYTES("K\xff."), 255},
        {BYTES("M\xff\xff."), 65535},
        {BYTES("J\x90\xee\xfe\xff."), -70000},
        {BYTES("\x8a\0."), 0},
        {BYTES("\x8a\1\xff."), -1},
        {BYTES("\x8a\2\xff\0."), 255},
        {BYTES("\x8a\6\0\0\0\0\0\1."), 1099511627776},
        {BYTES("\x8a\x08\0\0\0\0\0\0\0\x80."), INT64_MIN},
        {BYTES("\x8b\1\0\0\0\x80."), -128},
        {BYTES("I-17\n."), -17},
        {BYTES("L17L\n."), 17},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pickle *pickle = parse(cases[i].bytes, cases[i].n_bytes);
        int64_t value = 0;
        assert_true(pickle_as_int(pickle, pickle_root(pickle), &value));
        assert_int_equal(value, cases[i].value);
        pickle_destroy(pickle);
    }
    struct pickle *pickle = parse(BYTES("I01\n."));
    assert_int_equal(pickle_kind(pickle, pickle_root(pickle)), PICKLE_BOOL);
    pickle_destroy(pickle);
}

/* Dicts made in all ways; of one key the last value counts. */
static void dicts(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
    } cases[] = {
        {BYTES("}(U\1aK\1U\1bK\2U\1aK\3u.")},
        {BYTES("(U\1aK\1U\1aK\3d.")},
        {BYTES("}U\1aK\3s.")},
        {BYTES("}S'a'\nK\3s.")},
        {BYTES("}Va\np5\nK\3sg5\n0.")},
        {BYTES("}(\x8c\1a\x94K\1h\0K\3u.")},
        {BYTES("}(\x8d\1\0\0\0\0\0\0\0aK\3u.")},
        {BYTES("ccollections\nOrderedDict\n)R(U\1aK\3u.")},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pickle *pickle = parse(cases[i].bytes, cases[i].n_bytes);
        pickle_id found;
        int64_t value = 0;
        assert_true(pickle_dict_find(pickle, pickle_root(pickle), "a", &found));
        assert_true(pickle_as_int(pickle, found, &value));
        assert_int_equal(value, 3);
        assert_false(pickle_dict_find(pickle, pickle_root(pickle), "aa", &found));
        assert_false(pickle_dict_find(pickle, found, "a", &found));
        pickle_destroy(pickle);
    }
    /* The pairs of Python 2: [["a", 1], ("a", 3)]. */
    struct pickle *pickle = parse(BYTES("ccollections\nOrderedDict\n(](](U\1aK\1e(U\1aK\3tetR."));
    pickle_id found;
    int64_t value = 0;
    assert_int_equal(pickle_kind(pickle, pickle_root(pickle)), PICKLE_DICT);
    assert_true(pickle_dict_find(pickle, pickle_root(pickle), "a", &found));
    assert_true(pickle_as_int(pickle, found, &value));
    assert_int_equal(value, 3);
    pickle_destroy(pickle);
}

/* The arguments of a tensor as Python source, tuple by tuple. */
#define STORAGE(type, key, n) "(U\7storagectorch\n" type "\nU\1" key "U\3cpu" n "tQ"
#define TENSOR(storage, offset, size, stride)                                                      \
    "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset size stride "\x89"                       \
    "NtR."

static void tensors(void **state)
{
    (void)state;
    struct pickle_tensor tensor;
    struct error err = {0};
    struct pickle *pickle = parse(
        BYTES(TENSOR(STORAGE("BFloat16Storage", "7", "K\x0c"), "K\2", "(K\2K\3t", "(K\3K\1t")));
    assert_int_equal(pickle_as_tensor(pickle, pickle_root(pickle), &tensor, &err), STATUS_OK);
    assert_true(tensor.is_supported);
    assert_int_equal(tensor.dtype, DTYPE_BF16);
    assert_int_equal(tensor.storage_elements, 12);
    assert_int_equal(tensor.offset, 2);
    assert_int_equal(tensor.rank, 2);
    assert_int_equal(tensor.shape[1], 3);
    assert_int_equal(tensor.stride[0], 3);
    assert_memory_equal(tensor.storage_key.bytes, "7", 1);
    pickle_destroy(pickle);
    pickle = parse(BYTES(TENSOR(STORAGE("LongStorage", "7", "K\1"), "K\0", ")", ")")));
    assert_int_equal(pickle_as_tensor(pickle, pickle_root(pickle), &tensor, &err), STATUS_OK);
    assert_false(tensor.is_supported);
    pickle_destroy(pickle);
}

static void wrong_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n_bytes;
        const char *word;
    } cases[] = {
        {BYTES("N."), "found None, expected a tensor"},
        {BYTES("cx\nC\n)R."), "an object of another class"},
        {BYTES("ctorch._utils\n_rebuild_tensor_v2\n)R."), "description"},
        {BYTES(TENSOR("N", "K\0", "(K\1t", "(K\1t")),
         "the tensor's storage is None, expected a storage"},
        {BYTES(TENSOR("(U\7storageNU\1"
                      "0U\3cpuK\1tQ",
                      "K\0", "(K\1t", "(K\1t")),
         "storage type"},
        {BYTES(TENSOR("(U\7storagectorch\nFloatStorage\nK\1U\3cpuK\1tQ", "K\0", "(K\1t", "(K\1t")),
         "storage key"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "N"), "K\0", "(K\1t", "(K\1t")), "storage size"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "J\xff\xff\xff\xff"), "K\0", "(K\1t", "(K\1t")),
         "storage size"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "J\xff\xff\xff\xff", "(K\1t", "(K\1t")),
         "offset"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "N", "(K\1t", "(K\1t")), "offset"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "K\0", "N", "(K\1t")), "size"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "K\0", "(K\1Nt", "(K\1t")),
         "size has None, expected integers"},
        {BYTES(
             TENSOR(STORAGE("FloatStorage", "0", "K\1"), "K\0", "(K\1J\xff\xff\xff\xfft", "(K\1t")),
         "size has -1, expected integers of at least 0"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t",
                      "(K\1t")),
         "at most 8"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "K\0", "(K\1t", "(K\1K\1t")), "stride"},
        {BYTES(TENSOR(STORAGE("FloatStorage", "0", "K\1"), "K\0", "(K\1t", "(J\xff\xff\xff\xfft")),
         "stride"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct pickle *pickle = parse(cases[i].bytes, cases[i].n_bytes);
        struct pickle_tensor tensor;
        struct error err = {0};
        char what[32];
        snprintf(what, sizeof(what), "case %zu", i);
        test_expect_error(what, pickle_as_tensor(pickle, pickle_root(pickle), &tensor, &err), &err,
                          STATUS_INVALID, &cases[i].word, 1);
        pickle_destroy(pickle);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_called),
        cmocka_unit_test(refused_pickles),
        cmocka_unit_test(bombs),
        cmocka_unit_test(sharing),
        cmocka_unit_test(integers),
        cmocka_unit_test(dicts),
        cmocka_unit_test(tensors),
        cmocka_unit_test(wrong_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
