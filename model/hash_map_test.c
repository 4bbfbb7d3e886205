/*
 * hash_map_test.c - goal: what was put is found, also after growing; what was not is not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "model/hash_map.h"

enum { N = 5000 };

static void test_numbers(void **state)
{
    (void)state;
    struct number_map map;
    assert_int_equal(number_map_init(&map, 0, NULL), STATUS_OK);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(number_map_put(&map, i << 32 | (i * 7), (uint32_t)i, NULL), STATUS_OK);
    assert_int_equal(number_map_put(&map, 0, 99, NULL), STATUS_OK); /* replaced */
    assert_int_equal(map.n, N);
    assert_int_equal(*number_map_get(&map, 0), 99);
    for (uint64_t i = 1; i < N; i++) {
        assert_int_equal(*number_map_get(&map, i << 32 | (i * 7)), i);
        assert_null(number_map_get(&map, i << 32 | (i * 7 + 1)));
    }
    number_map_fini(&map);
    assert_null(number_map_get(&map, 5));
    number_map_fini(&map);
}

static void test_names(void **state)
{
    (void)state;
    static char names[N][8];
    struct name_map map;
    assert_int_equal(name_map_init(&map, 0, NULL), STATUS_OK);
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof(names[i]), "n%d", i);
        assert_int_equal(name_map_put(&map, names[i], strlen(names[i]), i, NULL), STATUS_OK);
    }
    for (int i = 0; i < N; i++)
        assert_int_equal(name_map_get(&map, names[i], strlen(names[i])), i);
    assert_int_equal(name_map_get(&map, "n", 1), -1);
    assert_int_equal(name_map_get(&map, "n1\0", 3), -1); /* a NUL is a byte like any other */
    assert_int_equal(name_map_get(&map, "", 0), -1);
    assert_int_equal(name_map_put(&map, "", 0, 7, NULL), STATUS_OK);
    assert_int_equal(name_map_get(&map, "", 0), 7);
    name_map_fini(&map);
    assert_int_equal(name_map_get(&map, "n1", 2), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
