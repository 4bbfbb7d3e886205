/*
 * Goal: the default pool holds the pictures it promises where there is memory, shrinks where there
 * is little, and is refused where there is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "daemon/kv_size.h"
#include "model/config.h"

static const struct model_config seven_b = {.hidden = 4096,
                                            .n_layers = 32,
                                            .n_heads = 32,
                                            .n_kv_heads = 32,
                                            .head_dim = 128,
                                            .max_positions = 4096};

static const int64_t GB = 1000000000;

static struct kv_size_question question(int64_t free_bytes)
{
    return (struct kv_size_question){.config = &seven_b,
                                     .target_size = 768,
                                     .n_stages = 2,
                                     .n_pipelines = 1,
                                     .item_bytes = 2,
                                     .weight_bytes = 14 * GB,
                                     .free_bytes = free_bytes};
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(kv_size_block_bytes(&seven_b, 2), 2 * 32 * 4096 * 64 * 2);
    assert_int_equal(kv_size_blocks(63, 0), 1);
    assert_int_equal(kv_size_blocks(64, 0), 2);
    assert_int_equal(kv_size_blocks(64, 1), 4);
}

static void test_enough_memory(void **state)
{
    struct kv_size_question q = question(500 * GB);
    int n;
    (void)state;
    assert_int_equal(kv_size_choose(&n, &q, NULL), STATUS_OK);
    assert_int_equal(n, 6 * 2 * ((2356 + 256) / 64 + 1)); /* 2 (2 + 1) guided pictures */
    q.n_stages = 1;
    assert_int_equal(kv_size_choose(&n, &q, NULL), STATUS_OK);
    assert_int_equal(n, 4 * 2 * ((2356 + 256) / 64 + 1));
    q.free_bytes = -1;
    q.target_size = 64; /* small pictures: still one request of all positions */
    assert_int_equal(kv_size_choose(&n, &q, NULL), STATUS_OK);
    assert_int_equal(n, 2 * (4096 / 64 + 1));
}

static void test_little_memory(void **state)
{
    struct kv_size_question q = question(24 * GB);
    struct error err;
    int n;
    (void)state;
    assert_int_equal(kv_size_choose(&n, &q, NULL), STATUS_OK);
    int64_t bytes = n * kv_size_block_bytes(&seven_b, 2);
    assert_true(bytes <= 10 * GB * 3 / 4);
    assert_true(bytes > 10 * GB * 3 / 4 - kv_size_block_bytes(&seven_b, 2));
    q.n_pipelines = 2;
    assert_int_equal(kv_size_choose(&n, &q, &err), STATUS_NOMEM);
    assert_non_null(strstr(err.text, "--kv-blocks"));
}

static void test_the_system_tells(void **state)
{
    (void)state;
    assert_true(kv_size_free_bytes() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_enough_memory),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_the_system_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
