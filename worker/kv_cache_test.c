/*
 * kv_cache_test.c - the books of blocks: what is shared, what is copied, what is freed, and that
 * nothing happens on error.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "worker/kv_cache.h"

enum { BLOCKS = 10, SEQUENCES = 4 };

static struct stream *stream;
static struct error err;

static int open_stream(void **state)
{
    (void)state;
    struct stream_options options = {.n_threads = 1};
    return stream_create(&stream, &options, &err) == STATUS_OK ? 0 : -1;
}

static int close_stream(void **state)
{
    (void)state;
    stream_destroy(stream);
    return 0;
}

static struct kv_cache *make_cache(int n_layers)
{
    struct kv_cache_options options = {.n_layers = n_layers,
                                       .n_blocks = BLOCKS,
                                       .sequences_max = SEQUENCES,
                                       .shape = {2, 1, 8, DTYPE_F32}};
    struct kv_cache *kv;
    assert_int_equal(kv_cache_create(&kv, &options, stream, &err), STATUS_OK);
    return kv;
}

static size_t block_bytes(void)
{
    struct attention_shape shape = {2, 1, 8, DTYPE_F32};
    return kv_block_bytes(&shape);
}

static char *block_memory(struct kv_cache *kv, int layer, int block)
{
    return (char *)kv_cache_layer(kv, layer).pool + (size_t)block * block_bytes();
}

static void test_grows_block_by_block(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(2);
    assert_int_equal(kv_cache_held(kv, 5), -1);
    assert_null(kv_cache_blocks_view(kv, 5));
    assert_int_equal(kv_cache_prepare(kv, 5, 0, 1, &err), STATUS_OK);
    assert_int_equal(kv_cache_n_used(kv), 1);
    assert_int_equal(kv_cache_prepare(kv, 5, 1, 63, &err), STATUS_OK);
    assert_int_equal(kv_cache_n_used(kv), 1);
    assert_int_equal(kv_cache_prepare(kv, 5, 64, 1, &err), STATUS_OK);
    assert_int_equal(kv_cache_n_used(kv), 2);
    assert_int_equal(kv_cache_held(kv, 5), 65);
    kv_cache_release(kv, 5);
    kv_cache_release(kv, 5);
    kv_cache_release(kv, 0);
    assert_int_equal(kv_cache_n_used(kv), 0);
    kv_cache_destroy(kv);
}

static void test_start_beyond_held_is_refused(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(1);
    assert_int_equal(kv_cache_prepare(kv, 1, 1, 1, &err), STATUS_INVALID);
    assert_int_equal(kv_cache_n_sequences(kv), 0);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, 10, &err), STATUS_OK);
    assert_int_equal(kv_cache_prepare(kv, 1, 11, 1, &err), STATUS_INVALID);
    assert_int_equal(kv_cache_prepare(kv, 1, 10, 1, &err), STATUS_OK);
    kv_cache_destroy(kv);
}

/* The pool's last block, one past it, and the last sequence, one past it. */
static void test_limits(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(1);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, BLOCKS * 64 + 1, &err), STATUS_NOMEM);
    assert_int_equal(kv_cache_n_sequences(kv), 0);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, BLOCKS * 64, &err), STATUS_OK);
    assert_int_equal(kv_cache_prepare(kv, 1, BLOCKS * 64, 1, &err), STATUS_NOMEM);
    assert_int_equal(kv_cache_held(kv, 1), BLOCKS * 64);
    assert_int_equal(kv_cache_prepare(kv, 2, 0, 1, &err), STATUS_NOMEM);
    /* What a row gives back counts for itself. */
    assert_int_equal(kv_cache_prepare(kv, 1, 0, BLOCKS * 64, &err), STATUS_OK);
    kv_cache_truncate(kv, 1, SEQUENCES);
    for (uint64_t id = 2; id <= SEQUENCES; id++)
        assert_int_equal(kv_cache_prepare(kv, id, 0, 1, &err), STATUS_OK);
    assert_int_equal(kv_cache_prepare(kv, 99, 0, 1, &err), STATUS_NOMEM);
    assert_int_equal(kv_cache_fork(kv, 1, 99, 4, &err), STATUS_NOMEM);
    assert_int_equal(kv_cache_n_used(kv), SEQUENCES);
    kv_cache_release_all(kv);
    assert_int_equal(kv_cache_n_used(kv), 0);
    kv_cache_destroy(kv);
}

static void test_fork_shares_full_blocks_and_copies_the_rest(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(2);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, 150, &err), STATUS_OK);
    const int32_t *from = kv_cache_blocks_view(kv, 1);
    for (int layer = 0; layer < 2; layer++)
        for (int i = 0; i < 3; i++)
            memset(block_memory(kv, layer, from[i]), 16 * layer + i + 1, block_bytes());
    assert_int_equal(kv_cache_fork(kv, 1, 2, 140, &err), STATUS_OK);
    const int32_t *to = kv_cache_blocks_view(kv, 2);
    assert_int_equal(to[0], from[0]);
    assert_int_equal(to[1], from[1]);
    assert_int_not_equal(to[2], from[2]);
    assert_int_equal(kv_cache_readers(kv, from[0]), 2);
    assert_int_equal(kv_cache_readers(kv, to[2]), 1);
    assert_int_equal(kv_cache_n_used(kv), 4);
    for (int layer = 0; layer < 2; layer++)
        assert_memory_equal(block_memory(kv, layer, to[2]), block_memory(kv, layer, from[2]),
                            block_bytes());
    /* The origin ends first; what is shared stays. */
    kv_cache_release(kv, 1);
    assert_int_equal(kv_cache_n_used(kv), 3);
    assert_int_equal(kv_cache_readers(kv, to[0]), 1);
    kv_cache_release(kv, 2);
    assert_int_equal(kv_cache_n_used(kv), 0);
    kv_cache_destroy(kv);
}

/* Going back into a shared block gives the writer a copy; the other reader's block is untouched. */
static void test_writing_into_a_shared_block(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(1);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, 192, &err), STATUS_OK);
    int32_t shared = kv_cache_blocks_view(kv, 1)[1];
    memset(block_memory(kv, 0, shared), 7, block_bytes());
    assert_int_equal(kv_cache_fork(kv, 1, 2, 128, &err), STATUS_OK);
    assert_int_equal(kv_cache_n_used(kv), 3);
    assert_int_equal(kv_cache_prepare(kv, 2, 100, 1, &err), STATUS_OK);
    int32_t own = kv_cache_blocks_view(kv, 2)[1];
    assert_int_not_equal(own, shared);
    assert_int_equal(kv_cache_readers(kv, shared), 1);
    assert_int_equal(kv_cache_readers(kv, own), 1);
    assert_memory_equal(block_memory(kv, 0, own), block_memory(kv, 0, shared), block_bytes());
    /* At a block's border nothing needs to be copied: a fresh block replaces the shared one. */
    assert_int_equal(kv_cache_fork(kv, 1, 3, 128, &err), STATUS_OK);
    assert_int_equal(kv_cache_prepare(kv, 3, 64, 64, &err), STATUS_OK);
    assert_int_not_equal(kv_cache_blocks_view(kv, 3)[1], shared);
    assert_int_equal(kv_cache_blocks_view(kv, 3)[0], kv_cache_blocks_view(kv, 1)[0]);
    kv_cache_destroy(kv);
}

/* The copy needs a block that the pool does not have: refused, and the books are as they were. */
static void test_no_block_for_a_copy(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(1);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, BLOCKS * 64, &err), STATUS_OK);
    assert_int_equal(kv_cache_fork(kv, 1, 2, 100, &err), STATUS_NOMEM);
    assert_int_equal(kv_cache_held(kv, 2), -1);
    assert_int_equal(kv_cache_fork(kv, 1, 2, 128, &err), STATUS_OK);
    assert_int_equal(kv_cache_prepare(kv, 2, 100, 1, &err), STATUS_NOMEM);
    assert_int_equal(kv_cache_held(kv, 2), 128);
    assert_int_equal(kv_cache_prepare(kv, 1, 100, 1, &err), STATUS_OK);
    kv_cache_destroy(kv);
}

static void test_wrong_forks(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(0);
    assert_int_equal(kv_cache_prepare(kv, 1, 0, 64, &err), STATUS_OK);
    assert_int_equal(kv_cache_fork(kv, 9, 2, 1, &err), STATUS_INVALID);
    assert_int_equal(kv_cache_fork(kv, 1, 2, 65, &err), STATUS_INVALID);
    assert_int_equal(kv_cache_fork(kv, 1, 2, 64, &err), STATUS_OK);
    assert_int_equal(kv_cache_fork(kv, 1, 2, 64, &err), STATUS_INVALID);
    assert_int_equal(kv_cache_n_used(kv), 1);
    kv_cache_destroy(kv);
}

static void test_wrong_options(void **state)
{
    (void)state;
    struct kv_cache *kv;
    struct kv_cache_options options = {
        .n_layers = 1, .n_blocks = 0, .sequences_max = 1, .shape = {2, 1, 8, DTYPE_F32}};
    assert_int_equal(kv_cache_create(&kv, &options, stream, &err), STATUS_INVALID);
    assert_null(kv);
    options.n_blocks = 1;
    options.sequences_max = 0;
    assert_int_equal(kv_cache_create(&kv, &options, stream, &err), STATUS_INVALID);
    kv_cache_destroy(NULL);
}

/* Many random steps; the books are compared with a naive count after each. */
static void test_random_steps_keep_the_books(void **state)
{
    (void)state;
    struct kv_cache *kv = make_cache(1);
    uint32_t random = 12345;
    for (int step = 0; step < 20000; step++) {
        random = random * 1664525 + 1013904223;
        uint64_t id = 1 + (random >> 8) % 6, other = 1 + (random >> 11) % 6;
        int held = kv_cache_held(kv, id), n = 1 + (int)((random >> 14) % 200);
        switch ((random >> 24) % 4) {
        case 0:
            kv_cache_prepare(kv, id, held > 0 ? (int)((random >> 17) % (uint32_t)(held + 1)) : 0, n,
                             NULL);
            break;
        case 1:
            kv_cache_fork(kv, id, other, n, NULL);
            break;
        case 2:
            kv_cache_truncate(kv, id, n);
            break;
        default:
            kv_cache_release(kv, id);
        }
        int readers[BLOCKS] = {0}, n_used = 0, n_sequences = 0;
        for (uint64_t s = 1; s <= 6; s++) {
            const int32_t *blocks = kv_cache_blocks_view(kv, s);
            n_sequences += kv_cache_held(kv, s) >= 0;
            for (int i = 0; i < (kv_cache_held(kv, s) + 63) / 64; i++)
                readers[blocks[i]]++;
        }
        for (int b = 0; b < BLOCKS; b++) {
            assert_int_equal(kv_cache_readers(kv, b), readers[b]);
            n_used += readers[b] > 0;
        }
        assert_int_equal(kv_cache_n_used(kv), n_used);
        assert_int_equal(kv_cache_n_sequences(kv), n_sequences);
    }
    kv_cache_destroy(kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_block_by_block),
        cmocka_unit_test(test_start_beyond_held_is_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_fork_shares_full_blocks_and_copies_the_rest),
        cmocka_unit_test(test_writing_into_a_shared_block),
        cmocka_unit_test(test_no_block_for_a_copy),
        cmocka_unit_test(test_wrong_forks),
        cmocka_unit_test(test_wrong_options),
        cmocka_unit_test(test_random_steps_keep_the_books),
    };
    return cmocka_run_group_tests(tests, open_stream, close_stream);
}
