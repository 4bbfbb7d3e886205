/*
 * utf8_test.c - goal: exactly the sequences of RFC 3629 are taken, every code point comes back, and
 * the characters that stand for bytes are a bijection.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/byte_level.h"
#include "model/utf8.h"

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        if (c >= 0xd800 && c < 0xe000)
            continue;
        char text[UTF8_BYTES_MAX];
        size_t n = utf8_write(text, c);
        size_t length;
        assert_int_equal(utf8_length(text, n, NULL), n);
        assert_int_equal(utf8_read(text, &length), c);
        assert_int_equal(length, n);
        assert_int_equal(utf8_length(text, n - 1, NULL), 0);
    }
}

/* The number of bytes one U+FFFD stands for is what Rust and the Unicode standard (table 3-8) say.
 */
static void test_invalid_sequences(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t bytes, bad;
    } cases[] = {
        {"\x80", 1, 1},
        {"\xc0\x80", 2, 1},
        {"\xc1\xbf", 2, 1},
        {"\xc3", 1, 1},
        {"\xc3(", 2, 1},
        {"\xe0\x80\x80", 3, 1},
        {"\xe0\xa0", 2, 2},
        {"\xe0\xa0(", 3, 2},
        {"\xed\xa0\x80", 3, 1},
        {"\xed\x9f", 2, 2},
        {"\xf0\x80\x80\x80", 4, 1},
        {"\xf0\x90\x80", 3, 3},
        {"\xf4\x90\x80\x80", 4, 1},
        {"\xf5\x80", 2, 1},
        {"\xff", 1, 1},
        {"\xf1\x80\x80\xc3", 4, 3},
        {"", 0, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t bad = 0;
        assert_int_equal(utf8_length(cases[i].text, cases[i].bytes, &bad), 0);
        assert_int_equal(bad, cases[i].bad);
    }
    assert_int_equal(utf8_find_invalid("ab\xc3\xa9\xff", 5), 4);
    assert_int_equal(utf8_find_invalid("ab\xc3\xa9", 4), 4);
}

static void test_characters_for_bytes(void **state)
{
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        uint32_t c = byte_level_character((uint8_t)byte);
        assert_true(c > 0x20 && c < BYTE_LEVEL_CHARACTERS_END);
        assert_int_equal(byte_level_byte(c), byte);
    }
    int n = 0;
    for (uint32_t c = 0; c < 0x1000; c++)
        n += byte_level_byte(c) >= 0;
    assert_int_equal(n, 256);
    assert_int_equal(byte_level_character(' '), 0x120);  /* as in vocabularies: G with a dot */
    assert_int_equal(byte_level_character('\n'), 0x10a); /* C with a dot */
    assert_int_equal(byte_level_character(0xad), 0x143);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_invalid_sequences),
        cmocka_unit_test(test_characters_for_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
