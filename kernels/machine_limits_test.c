/*
 * machine_limits_test.c - goal: on every code path both limits come out as possible numbers, their
 * means not above the best; the buffer to measure with is large, and leaves most of the memory.
 */
#include "kernels/test_tools.h"

#include "base/machine_memory.h"
#include "kernels/machine_limits.h"

static void check_limits(enum code_path path)
{
    enum { BYTES = 4 << 20 };
    struct stream *stream = test_stream(path, 2);
    struct machine_limits limits;
    void *buffer;
    assert_int_equal(stream_alloc(stream, &buffer, BYTES, NULL), STATUS_OK);
    assert_int_equal(machine_limits_measure(&limits, stream, buffer, BYTES, 2, NULL), STATUS_OK);
    printf("%s: %.1f GB/s (in the caches), %.1f GFLOP/s\n", code_path_name(path),
           limits.read_bytes_s * 1e-9, limits.dense_flop_s * 1e-9);
    assert_true(limits.read_bytes_s > 1e6 && limits.read_bytes_s < 1e14);
    assert_true(limits.dense_flop_s > 1e6 && limits.dense_flop_s < 1e15);
    assert_true(limits.read_mean_bytes_s > 0 && limits.read_mean_bytes_s <= limits.read_bytes_s);
    assert_true(limits.dense_mean_flop_s > 0 && limits.dense_mean_flop_s <= limits.dense_flop_s);
    stream_free(stream, buffer, BYTES);
    stream_destroy(stream);
}

static void test_limits(void **state)
{
    (void)state;
    test_each_path(check_limits);
}

static void test_buffer(void **state)
{
    (void)state;
    struct stream *stream = test_stream(CODE_PATH_PORTABLE, 1);
    size_t bytes = machine_limits_buffer_bytes(stream), least = 256 << 20, free_bytes, total_bytes;
    assert_true(machine_memory(&free_bytes, &total_bytes));
    assert_true(bytes >= least);
    assert_true(bytes == least || bytes <= total_bytes / 8);
    stream_destroy(stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limits),
                                       cmocka_unit_test(test_buffer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
