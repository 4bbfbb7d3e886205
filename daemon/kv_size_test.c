/*
 * Goal: the default pool holds the pictures it promises where there is memory, shrinks to the
 * smallest room where there is little, counts stages that share a memory together, and is refused
 * with figures where there is none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

static const uint64_t GB = 1000000000;
static const uint64_t BLOCK = (uint64_t)2 * 32 * 4096 * 64 * 2; /* of all 32 layers, bf16 */

enum { PICTURE_BLOCKS = 2 * ((2356 + 256) / 64 + 1) }; /* guided, 768x768, with its prompt */

/* n stages of 7B, equally large, each in a memory of its own with so much free of twice that. */
static struct kv_size_question question(struct kv_size_stage *stages, int n, bool is_device,
                                        uint64_t free_bytes)
{
    for (int i = 0; i < n; i++) {
        stages[i] = (struct kv_size_stage){.is_device = is_device,
                                           .free_bytes = free_bytes,
                                           .total_bytes = 2 * free_bytes,
                                           .need_bytes = 14 * GB / (uint64_t)n,
                                           .block_bytes = BLOCK / (uint64_t)n};
        snprintf(stages[i].memory, sizeof(stages[i].memory), "host cuda:%d", i);
    }
    return (struct kv_size_question){
        .config = &seven_b, .target_size = 768, .n_stages = n, .stages = stages, .n_all = n};
}

static int choose(const struct kv_size_question *q)
{
    struct error err = {.text = ""};
    int n = 0;
    if (kv_size_choose(&n, q, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return n;
}

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(kv_size_block_bytes(&seven_b, 2), BLOCK);
    assert_int_equal(kv_size_blocks(63, 0), 1);
    assert_int_equal(kv_size_blocks(64, 0), 2);
    assert_int_equal(kv_size_blocks(64, 1), 4);
}

static void test_enough_memory(void **state)
{
    struct kv_size_stage stages[2];
    (void)state;
    struct kv_size_question q = question(stages, 2, false, 900 * GB);
    assert_int_equal(choose(&q), 24 * PICTURE_BLOCKS); /* 8 (2 + 1) */
    q = question(stages, 2, true, 900 * GB);
    assert_int_equal(choose(&q), 96 * PICTURE_BLOCKS); /* 32 (2 + 1) */
    q = question(stages, 1, false, 900 * GB);
    assert_int_equal(choose(&q), 16 * PICTURE_BLOCKS);
    stages[0].total_bytes = stages[0].free_bytes = 0; /* not told */
    struct model_config long_text = seven_b;
    long_text.max_positions = 8192;
    q.config = &long_text;
    q.target_size = 64; /* small pictures: still one request of all positions */
    assert_int_equal(choose(&q), 2 * (8192 / 64 + 1));
}

static void test_little_memory(void **state)
{
    struct kv_size_stage stages[2];
    (void)state;
    struct kv_size_question q = question(stages, 1, false, 24 * GB);
    assert_int_equal(choose(&q), (10 * GB - 10 * GB / 4) / BLOCK);
    /* A device gives all but a 32nd part of itself. */
    q = question(stages, 1, true, 24 * GB);
    assert_int_equal(choose(&q), (10 * GB - 48 * GB / 32) / BLOCK);
}

static void test_the_smallest_room_decides(void **state)
{
    struct kv_size_stage stages[2];
    (void)state;
    struct kv_size_question q = question(stages, 2, true, 24 * GB);
    int equal = choose(&q);
    stages[1].need_bytes += 4 * GB;
    assert_int_equal(choose(&q), (24 * GB - 11 * GB - 48 * GB / 32) / (BLOCK / 2));
    assert_true(choose(&q) < equal);
    stages[1].block_bytes = 0; /* the head alone */
    assert_int_equal(choose(&q), equal);
}

static void test_stages_share_a_memory(void **state)
{
    struct kv_size_stage stages[2];
    (void)state;
    struct kv_size_question q = question(stages, 2, true, 24 * GB);
    strcpy(stages[1].memory, stages[0].memory);
    stages[1].free_bytes -= GB; /* asked a little later: the smaller figure counts */
    assert_int_equal(choose(&q), (23 * GB - 14 * GB - 48 * GB / 32) / BLOCK);
}

static void test_too_little_memory(void **state)
{
    struct kv_size_stage stages[2];
    struct error err;
    int n;
    (void)state;
    struct kv_size_question q = question(stages, 2, true, 8 * GB);
    assert_int_equal(kv_size_choose(&n, &q, &err), STATUS_NOMEM);
    assert_string_equal(
        err.text, "host cuda:0 has 7629 of 15258 MiB free; the stages there need 6675 MiB "
                  "and leave 476 free, so 29 KV blocks of 16384 kB fit and one picture needs "
                  "82: use more --stages or more memory; --kv-blocks sets the number by hand");
    /* Just enough for one picture, and a byte too little. */
    q = question(stages, 1, true, 64 * GB);
    stages[0].need_bytes = 60 * GB - PICTURE_BLOCKS * BLOCK;
    assert_int_equal(choose(&q), PICTURE_BLOCKS);
    stages[0].need_bytes++;
    assert_int_equal(kv_size_choose(&n, &q, &err), STATUS_NOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_enough_memory),
        cmocka_unit_test(test_little_memory),
        cmocka_unit_test(test_the_smallest_room_decides),
        cmocka_unit_test(test_stages_share_a_memory),
        cmocka_unit_test(test_too_little_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
