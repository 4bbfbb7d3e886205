/*
 * machine_limits_test.c - goal: on every code path both limits come out as possible numbers, their
 * means not above the best, and no memory is said.
 */
#include "kernels/test_tools.h"

#include "kernels/machine_limits.h"

static void check_limits(enum code_path path)
{
    struct stream *stream = test_stream(path, 2);
    struct machine_limits limits;
    assert_int_equal(machine_limits_measure(&limits, stream, 4 << 20, 2, NULL), STATUS_OK);
    printf("%s: %.1f GB/s (in the caches), %.1f GFLOP/s\n", code_path_name(path),
           limits.read_bytes_s * 1e-9, limits.dense_flop_s * 1e-9);
    assert_true(limits.read_bytes_s > 1e6 && limits.read_bytes_s < 1e14);
    assert_true(limits.dense_flop_s > 1e6 && limits.dense_flop_s < 1e15);
    assert_true(limits.read_mean_bytes_s > 0 && limits.read_mean_bytes_s <= limits.read_bytes_s);
    assert_true(limits.dense_mean_flop_s > 0 && limits.dense_mean_flop_s <= limits.dense_flop_s);
    stream_destroy(stream);
}

static void test_limits(void **state)
{
    (void)state;
    test_each_path(check_limits);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 1);
    struct machine_limits limits;
    struct error err;
    assert_int_equal(machine_limits_measure(&limits, stream, SIZE_MAX / 4, 1, &err), STATUS_NOMEM);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
