/*
 * safetensors_test.c - a file is taken only when its header describes every byte; what is written
 * is read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "model/safetensors.h"
#include "model/safetensors_write.h"
#include "model/test_folder.h"

/* Header length, header, n_data bytes counting up. The caller frees. */
static unsigned char *make_file(const char *header, uint64_t length, size_t n_data, size_t *n_bytes)
{
    size_t n_header = strlen(header);
    unsigned char *bytes = malloc(8 + n_header + n_data + 1);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(length >> (8 * i));
    memcpy(bytes + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++)
        bytes[8 + n_header + i] = (unsigned char)i;
    *n_bytes = 8 + n_header + n_data;
    return bytes;
}

#define A_OF(dtype, shape, begin, end)                                                             \
    "\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static const struct {
    const char *header;
    int n_data;
    const char *words[3];
} refused[] = {
    {"", 0, {"header", "no JSON"}},
    {"{", 0, {"header", "no JSON"}},
    {"[]", 0, {"an array"}},
    {"{}", 1, {"1 bytes behind"}},
    {"{" A_OF("BF16", "[2,2]", "0", "8") "}", 7, {"'a'", "0 to 8", "7 bytes"}},
    {"{" A_OF("BF16", "[2,2]", "0", "8") "}", 9, {"1 bytes behind"}},
    {"{" A_OF("BF16", "[2,2]", "0", "4") "}",
     4,
     {"'a'", "4 bytes", "expected 8 for [2, 2] of BF16"}},
    {"{" A_OF("BF16", "[2,2]", "8", "0") "}", 8, {"'a'", "8 to 0"}},
    {"{" A_OF("BF16", "[2,2]", "-8", "0") "}", 8, {"'a'", "'data_offsets'", "-8"}},
    {"{" A_OF("BF16", "[2,2]", "0", "9223372036854775807") "}", 8, {"'a'", "9223372036854775807"}},
    {"{" A_OF("BF16", "[2,2]", "0", "9223372036854775808") "}", 8, {"no JSON", "integer"}},
    {"{" A_OF("BF16", "[2,2]", "0.0", "8.0") "}", 8, {"'a'", "'data_offsets'"}},
    {"{" A_OF("BF16", "[2,2]", "2", "10") "}", 10, {"'a'", "byte 2", "hole"}},
    {"{" A_OF("BF16", "[-2,-2]", "0", "8") "}", 8, {"'a'", "'shape'", "-2"}},
    {"{" A_OF("BF16", "[2.0,2]", "0", "8") "}", 8, {"'a'", "'shape'", "is 2.0, expected integers"}},
    {"{" A_OF("BF16", "4", "0", "8") "}", 8, {"'a'", "'shape'", "array of at most 8"}},
    {"{" A_OF("BF16", "[1,1,1,1,1,1,1,1,4]", "0", "8") "}", 8, {"'a'", "'shape'", "at most 8"}},
    {"{" A_OF("BF16", "[4611686018427387904,4]", "0", "8") "}", 8, {"'a'", "'shape'", "memory"}},
    {"{" A_OF("F32", "[4294967296,4294967296]", "0", "0") "}", 0, {"'a'", "'shape'", "memory"}},
    {"{" A_OF("BF16", "[4611686018427387904]", "0", "8") "}",
     8,
     {"'a'", "expected 9223372036854775808"}},
    {"{" A_OF("bf16", "[4]", "0", "8") "}", 8, {"'a'", "'dtype'", "'bf16'"}},
    {"{" A_OF("F4", "[4]", "0", "2") "}", 2, {"'a'", "'dtype'", "'F4'"}},
    {"{\"a\":7}", 0, {"'a'", "7", "an object"}},
    {"{\"__metadata__\":[]}", 0, {"'__metadata__'", "an array of 0", "expected an object"}},
    {"{\"__metadata__\":{\"a\":1}}", 0, {"'__metadata__.a'", "is 1", "expected a string"}},
    {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[0]}}", 0, {"'a'", "'data_offsets'", "nothing"}},
    {"{\"a\":{\"shape\":[0],\"data_offsets\":[0,0]}}", 0, {"'a'", "'dtype'", "nothing"}},
    {"{\"a\":{\"dtype\":\"BF16\",\"data_offsets\":[0,0]}}", 0, {"'a'", "'shape'", "nothing"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":1}}", 0, {"'a'", "'x'"}},
    {"{" A_OF("U8", "[0]", "0", "0") "," A_OF("U8", "[0]", "0", "0") "}",
     0,
     {"duplicate", "\"a\""}},
    {"{" A_OF("U8", "[4]", "0",
              "4") ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[3,7]}}",
     7,
     {"'b'", "overlap"}},
    {"{" A_OF("U8", "[4]", "0",
              "4") ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     4,
     {"overlap"}},
    {"{" A_OF("U8", "[4]", "0",
              "4") ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[5,9]}}",
     9,
     {"'b'", "byte 5", "hole"}},
};

static void refused_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        size_t n_bytes;
        unsigned char *bytes = make_file(refused[i].header, strlen(refused[i].header),
                                         (size_t)refused[i].n_data, &n_bytes);
        struct safetensors *file;
        struct error err;
        enum status st = safetensors_open_memory(&file, bytes, n_bytes, "dir/x.safetensors", &err);
        test_expect_error(refused[i].header, st, &err, STATUS_INVALID, refused[i].words, 3);
        assert_non_null(strstr(err.text, "'dir/x.safetensors'"));
        assert_null(file);
        free(bytes);
    }
}

static void refused_lengths(void **state)
{
    (void)state;
    static const struct {
        uint64_t length;
        const char *words[2];
    } cases[] = {
        {(uint64_t)1 << 62, {"4611686018427387904", "at most"}},
        {UINT64_MAX, {"18446744073709551615", "at most"}},
        {SAFETENSORS_HEADER_BYTES_MAX + 1, {"1048577", "at most 1048576"}},
        {3, {"3", "only 2 bytes follow"}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n_bytes;
        unsigned char *bytes = make_file("{}", cases[i].length, 0, &n_bytes);
        struct safetensors *file;
        struct error err;
        enum status st = safetensors_open_memory(&file, bytes, n_bytes, "x", &err);
        test_expect_error("length", st, &err, STATUS_INVALID, cases[i].words, 2);
        free(bytes);
    }
}

/* Every prefix of a good file is refused; so is the file with one byte more. */
static void truncated(void **state)
{
    (void)state;
    const char header[] = "{" A_OF("F32", "[3]", "0", "12") "}   ";
    size_t n_bytes;
    unsigned char *bytes = make_file(header, strlen(header), 12, &n_bytes);
    struct safetensors *file;
    for (size_t n = 0; n < n_bytes; n++) {
        assert_int_equal(safetensors_open_memory(&file, bytes, n, "x", NULL), STATUS_INVALID);
        assert_null(file);
    }
    assert_int_equal(safetensors_open_memory(&file, bytes, n_bytes, "x", NULL), STATUS_OK);
    safetensors_close(file);
    bytes[n_bytes] = 0;
    assert_int_equal(safetensors_open_memory(&file, bytes, n_bytes + 1, "x", NULL), STATUS_INVALID);
    free(bytes);
}

static void accepted(void **state)
{
    (void)state;
    const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"z\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]},"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[4,0,9223372036854775807],\"data_offsets\":[2,2]},"
        "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[3,11]}," A_OF("U8", "[1]", "2",
                                                                                "3") "}";
    size_t n_bytes;
    unsigned char *bytes = make_file(header, strlen(header), 11, &n_bytes);
    struct safetensors *file;
    struct error err = {0};
    struct tensor_view view;
    enum status st = safetensors_open_memory(&file, bytes, n_bytes, "x", &err);
    if (st != STATUS_OK)
        print_error("%s\n", err.text);
    assert_int_equal(st, STATUS_OK);
    assert_int_equal(safetensors_count(file), 4);
    assert_string_equal(safetensors_entry_at(file, 0)->name, "a");
    assert_null(safetensors_entry_at(file, 4));
    assert_null(safetensors_lookup(file, "__metadata__"));
    assert_int_equal(safetensors_view(file, safetensors_lookup(file, "z"), &view, &err), STATUS_OK);
    assert_int_equal(view.rank, 0);
    assert_int_equal(tensor_elements(&view), 1);
    assert_int_equal(view.dtype, DTYPE_F16);
    assert_int_equal(safetensors_view(file, safetensors_lookup(file, "e"), &view, &err), STATUS_OK);
    assert_int_equal(view.bytes, 0);
    st = safetensors_view(file, safetensors_lookup(file, "i"), &view, &err);
    test_expect_error("i64", st, &err, STATUS_UNSUPPORTED, (const char *[]){"'i'", "I64", "BF16"},
                      3);
    safetensors_close(file);
    free(bytes);
}

static void written_and_read(void **state)
{
    (void)state;
    const float a[6] = {1, 2, 3, 4, 5, 6};
    const bf16 b[3] = {0x3f80, 0x4000, 0x7f80};
    const struct safetensors_output tensors[] = {
        {.name = "first \"quoted\"", .dtype = DTYPE_F32, .rank = 2, .shape = {2, 3}, .data = a},
        {.name = "second", .dtype = DTYPE_BF16, .rank = 1, .shape = {3}, .data = b},
        {.name = "none", .dtype = DTYPE_F16, .rank = 1, .shape = {0}, .data = NULL},
    };
    struct test_folder folder;
    struct error err = {0};
    struct safetensors *file;
    struct tensor_view view;
    test_folder_make(&folder);
    const char *path = test_folder_path(&folder, "out.safetensors");
    assert_int_equal(safetensors_write(path, tensors, 3, &err), STATUS_OK);
    assert_int_equal(safetensors_open(&file, path, &err), STATUS_OK);
    assert_int_equal(
        safetensors_view(file, safetensors_lookup(file, "first \"quoted\""), &view, &err),
        STATUS_OK);
    assert_memory_equal(view.data, a, sizeof(a));
    assert_int_equal((uintptr_t)view.data % 64, 0);
    assert_int_equal(tensor_expect_shape(&view, 2, (int64_t[]){2, 3}, &err), STATUS_OK);
    assert_int_equal(tensor_check_finite(&view, &err), STATUS_OK);
    enum status st = tensor_expect_shape(&view, 2, (int64_t[]){3, 2}, &err);
    test_expect_error("shape", st, &err, STATUS_INVALID,
                      (const char *[]){"[2, 3]", "expected [3, 2]"}, 2);
    assert_int_equal(safetensors_view(file, safetensors_lookup(file, "second"), &view, &err),
                     STATUS_OK);
    test_expect_error("infinite", tensor_check_finite(&view, &err), &err, STATUS_INVALID,
                      (const char *[]){"out.safetensors", "'second'", "number 2 of 3"}, 3);
    safetensors_drop_pages(file);
    assert_memory_equal(view.data, b, sizeof(b));
    safetensors_close(file);
    test_folder_remove(&folder);
}

/* NaN and infinity at the first, the last and a middle place of each type. */
static void finiteness(void **state)
{
    (void)state;
    enum { N = 5000 };
    static uint32_t words[N];
    static uint16_t halves[N];
    const uint32_t bad32[] = {0x7f800000, 0xff800000, 0x7fc00001, 0x7f800001};
    struct error err;
    for (size_t i = 0; i < N; i += 2499) {
        struct tensor_view view = {
            .name = "t", .file = "f", .dtype = DTYPE_F32, .data = words, .bytes = sizeof(words)};
        char words_expected[32];
        snprintf(words_expected, sizeof(words_expected), "number %zu of 5000", i);
        for (size_t k = 0; k < 4; k++) {
            words[i] = bad32[k];
            test_expect_error("f32", tensor_check_finite(&view, &err), &err, STATUS_INVALID,
                              (const char *[]){words_expected}, 1);
        }
        words[i] = 0x7f7fffff;
        assert_int_equal(tensor_check_finite(&view, &err), STATUS_OK);
        view.data = halves;
        view.bytes = sizeof(halves);
        view.dtype = DTYPE_BF16;
        halves[i] = 0x7f81;
        assert_int_equal(tensor_check_finite(&view, &err), STATUS_INVALID);
        halves[i] = 0x7f7f;
        assert_int_equal(tensor_check_finite(&view, &err), STATUS_OK);
        view.dtype = DTYPE_F16;
        halves[i] = 0xfc00;
        assert_int_equal(tensor_check_finite(&view, &err), STATUS_INVALID);
        halves[i] = 0xfbff;
        assert_int_equal(tensor_check_finite(&view, &err), STATUS_OK);
    }
}

static void writer_limits(void **state)
{
    (void)state;
    struct test_folder folder;
    struct error err;
    struct safetensors_writer *writer;
    const float data[2] = {0};
    const struct safetensors_output twice[] = {
        {.name = "a", .dtype = DTYPE_F32, .rank = 1, .shape = {1}, .data = data},
        {.name = "a", .dtype = DTYPE_F32, .rank = 1, .shape = {1}, .data = data},
    };
    test_folder_make(&folder);
    const char *path = test_folder_path(&folder, "x.safetensors");
    assert_int_equal(safetensors_write(path, twice, 2, &err), STATUS_INVALID);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(safetensors_writer_create(&writer, path, twice, 1, &err), STATUS_OK);
    assert_int_equal(safetensors_writer_append(writer, data, 8, &err), STATUS_INVALID);
    assert_int_equal(safetensors_writer_finish(writer, &err), STATUS_INVALID);
    safetensors_writer_destroy(writer);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(safetensors_write("/nonexistent/x", twice, 1, &err), STATUS_IO);
    test_folder_remove(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_headers),  cmocka_unit_test(refused_lengths),
        cmocka_unit_test(truncated),        cmocka_unit_test(accepted),
        cmocka_unit_test(written_and_read), cmocka_unit_test(finiteness),
        cmocka_unit_test(writer_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
