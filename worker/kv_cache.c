/*
 * kv_cache.c - a stack of free blocks, a count of readers for each, and a hash table of sequences.
 *
 * The table has linear probing and backward-shift deletion; it is at most half full, so a probe
 * ends soon.
 */
#include "worker/kv_cache.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct sequence {
    uint64_t id; /* 0: the slot is free */
    int held;    /* positions */
    int n_blocks;
    int blocks_capacity;
    int32_t *blocks; /* [n_blocks], owned */
};

struct kv_cache {
    struct kv_cache_options options;
    struct stream *stream; /* borrowed */
    size_t block_bytes;    /* of one layer */
    void **pools;          /* [n_layers], each n_blocks * block_bytes */
    int32_t *readers;      /* [n_blocks] 0 when free */
    int32_t *free_blocks;  /* [n_blocks] a stack */
    int n_free;
    struct sequence *slots; /* [n_slots], a power of two */
    size_t n_slots;
    int n_sequences;
};

enum { KV_SEQUENCES_MAX = 1 << 20 };

size_t kv_cache_bytes(const struct kv_cache_options *options)
{
    size_t bytes = 0;
    if (__builtin_mul_overflow(kv_block_bytes(&options->shape), (size_t)options->n_blocks,
                               &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)options->n_layers, &bytes))
        return SIZE_MAX;
    return bytes;
}

static enum status allocate_pools(struct kv_cache *kv, struct error *err)
{
    const struct kv_cache_options *options = &kv->options;
    kv->pools = calloc((size_t)options->n_layers + 1, sizeof(*kv->pools));
    if (!kv->pools)
        return error_set(err, STATUS_NOMEM, "cannot allocate the list of pools");
    for (int i = 0; i < options->n_layers; i++) {
        enum status st = stream_alloc(kv->stream, &kv->pools[i],
                                      kv->block_bytes * (size_t)options->n_blocks, err);
        if (st != STATUS_OK)
            return error_wrap(err, st, "KV pool of %d blocks, layer %d of %d", options->n_blocks,
                              i + 1, options->n_layers);
    }
    return STATUS_OK;
}

static enum status allocate_books(struct kv_cache *kv, struct error *err)
{
    size_t n_blocks = (size_t)kv->options.n_blocks;
    kv->n_slots = 2;
    while (kv->n_slots < 2 * (size_t)kv->options.sequences_max)
        kv->n_slots *= 2;
    kv->readers = calloc(n_blocks, sizeof(*kv->readers));
    kv->free_blocks = calloc(n_blocks, sizeof(*kv->free_blocks));
    kv->slots = calloc(kv->n_slots, sizeof(*kv->slots));
    if (!kv->readers || !kv->free_blocks || !kv->slots)
        return error_set(err, STATUS_NOMEM, "cannot allocate the books of %zu KV blocks", n_blocks);
    /* The lowest numbers are handed out first. */
    for (size_t i = 0; i < n_blocks; i++)
        kv->free_blocks[i] = (int32_t)(n_blocks - 1 - i);
    kv->n_free = kv->options.n_blocks;
    return STATUS_OK;
}

enum status kv_cache_create(struct kv_cache **out, const struct kv_cache_options *options,
                            struct stream *stream, struct error *err)
{
    *out = NULL;
    if (options->n_layers < 0 || options->n_blocks < 1 || options->sequences_max < 1 ||
        options->sequences_max > KV_SEQUENCES_MAX)
        return error_set(err, STATUS_INVALID, "KV cache of %d layers, %d blocks, %d sequences",
                         options->n_layers, options->n_blocks, options->sequences_max);
    if (kv_cache_bytes(options) == SIZE_MAX)
        return error_set(err, STATUS_NOMEM, "KV cache of %d blocks in %d layers is too large",
                         options->n_blocks, options->n_layers);
    struct kv_cache *kv = calloc(1, sizeof(*kv));
    if (!kv)
        return error_set(err, STATUS_NOMEM, "cannot allocate the cache header");
    kv->options = *options;
    kv->stream = stream;
    kv->block_bytes = kv_block_bytes(&options->shape);
    enum status st = allocate_books(kv, err);
    if (st == STATUS_OK)
        st = allocate_pools(kv, err);
    if (st != STATUS_OK) {
        kv_cache_destroy(kv);
        return st;
    }
    *out = kv;
    return STATUS_OK;
}

void kv_cache_destroy(struct kv_cache *kv)
{
    if (!kv)
        return;
    for (size_t i = 0; kv->slots && i < kv->n_slots; i++)
        free(kv->slots[i].blocks);
    for (int i = 0; kv->pools && i < kv->options.n_layers; i++)
        stream_free(kv->stream, kv->pools[i], kv->block_bytes * (size_t)kv->options.n_blocks);
    free(kv->pools);
    free(kv->readers);
    free(kv->free_blocks);
    free(kv->slots);
    free(kv);
}

struct kv_layer kv_cache_layer(const struct kv_cache *kv, int layer_index)
{
    CHECK(layer_index >= 0);
    CHECK(layer_index < kv->options.n_layers);
    return (struct kv_layer){kv->pools[layer_index], kv->options.n_blocks};
}

/* ---- the table of sequences ---- */

static size_t home_slot(const struct kv_cache *kv, uint64_t id)
{
    /* Fibonacci hashing: ids that count up spread over the table. */
    return (size_t)(id * 0x9e3779b97f4a7c15u >> 32) & (kv->n_slots - 1);
}

static struct sequence *find_sequence(const struct kv_cache *kv, uint64_t id)
{
    for (size_t i = home_slot(kv, id); kv->slots[i].id != 0; i = (i + 1) & (kv->n_slots - 1))
        if (kv->slots[i].id == id)
            return &kv->slots[i];
    return NULL;
}

/* The caller has checked that there is room. */
static struct sequence *add_sequence(struct kv_cache *kv, uint64_t id)
{
    CHECK(id != 0);
    CHECK(kv->n_sequences < kv->options.sequences_max);
    size_t i = home_slot(kv, id);
    while (kv->slots[i].id != 0)
        i = (i + 1) & (kv->n_slots - 1);
    kv->slots[i] = (struct sequence){.id = id};
    kv->n_sequences++;
    return &kv->slots[i];
}

/* Closes the gap that a removed sequence leaves: what probed past it moves back. */
static void remove_slot(struct kv_cache *kv, size_t gap)
{
    size_t mask = kv->n_slots - 1;
    for (size_t i = (gap + 1) & mask; kv->slots[i].id != 0; i = (i + 1) & mask) {
        size_t home = home_slot(kv, kv->slots[i].id);
        if (((i - home) & mask) < ((i - gap) & mask))
            continue;
        kv->slots[gap] = kv->slots[i];
        gap = i;
    }
    kv->slots[gap] = (struct sequence){.id = 0};
    kv->n_sequences--;
}

/* ---- blocks ---- */

static int32_t acquire_block(struct kv_cache *kv)
{
    CHECK(kv->n_free > 0);
    int32_t block = kv->free_blocks[--kv->n_free];
    CHECK(kv->readers[block] == 0);
    kv->readers[block] = 1;
    return block;
}

static void release_block(struct kv_cache *kv, int32_t block)
{
    CHECK(kv->readers[block] > 0);
    if (--kv->readers[block] == 0)
        kv->free_blocks[kv->n_free++] = block;
}

static void copy_block(struct kv_cache *kv, int32_t to, int32_t from)
{
    for (int i = 0; i < kv->options.n_layers; i++) {
        char *pool = kv->pools[i];
        stream_copy(kv->stream, pool + (size_t)to * kv->block_bytes,
                    pool + (size_t)from * kv->block_bytes, kv->block_bytes);
    }
}

static int blocks_for(int n_positions)
{
    return (n_positions + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

static bool reserve_list(struct sequence *sequence, int n_blocks)
{
    if (n_blocks <= sequence->blocks_capacity)
        return true;
    int capacity = sequence->blocks_capacity > 0 ? sequence->blocks_capacity : 8;
    while (capacity < n_blocks)
        capacity *= 2;
    int32_t *blocks = realloc(sequence->blocks, (size_t)capacity * sizeof(*blocks));
    if (!blocks)
        return false;
    sequence->blocks = blocks;
    sequence->blocks_capacity = capacity;
    return true;
}

static enum status pool_used_up(const struct kv_cache *kv, uint64_t sequence, int n_needed,
                                struct error *err)
{
    return error_set(err, STATUS_NOMEM, "sequence %llu needs %d KV blocks, %d of %d are free",
                     (unsigned long long)sequence, n_needed, kv->n_free, kv->options.n_blocks);
}

static enum status too_many_sequences(const struct kv_cache *kv, uint64_t sequence,
                                      struct error *err)
{
    return error_set(err, STATUS_NOMEM,
                     "sequence %llu does not fit, the limit is %d sequences at once",
                     (unsigned long long)sequence, kv->options.sequences_max);
}

/*
 * Blocks that [start, end) of the sequence will take from the pool, after those that it gives back
 * when it forgets what lies from start on: the reader of a block that only it reads frees it.
 */
static int count_needed(const struct kv_cache *kv, const struct sequence *sequence, int start,
                        int end, int *n_given_back)
{
    int n_kept = sequence ? blocks_for(start) : 0; /* with positions before start */
    bool partial_shared =
        start % KV_BLOCK_TOKENS != 0 && kv->readers[sequence->blocks[n_kept - 1]] > 1;
    *n_given_back = 0;
    for (int i = n_kept; sequence && i < sequence->n_blocks; i++)
        *n_given_back += kv->readers[sequence->blocks[i]] == 1;
    return blocks_for(end) - n_kept + partial_shared;
}

static void truncate_sequence(struct kv_cache *kv, struct sequence *sequence, int n_positions)
{
    if (n_positions >= sequence->held)
        return;
    for (int n_kept = blocks_for(n_positions); sequence->n_blocks > n_kept;)
        release_block(kv, sequence->blocks[--sequence->n_blocks]);
    sequence->held = n_positions;
}

/* Gives the sequence a last block of its own, with the positions before held copied. */
static void unshare_last_block(struct kv_cache *kv, struct sequence *sequence)
{
    int32_t *last = &sequence->blocks[sequence->n_blocks - 1];
    if (kv->readers[*last] == 1)
        return;
    int32_t block = acquire_block(kv);
    copy_block(kv, block, *last);
    release_block(kv, *last);
    *last = block;
}

enum status kv_cache_prepare(struct kv_cache *kv, uint64_t id, int start, int n_positions,
                             struct error *err)
{
    CHECK(start >= 0);
    CHECK(n_positions > 0);
    int end = start + n_positions;
    struct sequence *sequence = find_sequence(kv, id);
    int held = sequence ? sequence->held : 0;
    if (start > held)
        return error_set(err, STATUS_INVALID,
                         "sequence %llu starts at position %d, it holds %d here",
                         (unsigned long long)id, start, held);
    if (!sequence && kv->n_sequences == kv->options.sequences_max)
        return too_many_sequences(kv, id, err);
    int n_given_back = 0;
    int n_needed = count_needed(kv, sequence, start, end, &n_given_back);
    if (n_needed > kv->n_free + n_given_back)
        return pool_used_up(kv, id, n_needed, err);
    bool is_new = !sequence;
    if (is_new)
        sequence = add_sequence(kv, id);
    if (!reserve_list(sequence, blocks_for(end))) {
        if (is_new)
            kv_cache_release(kv, id);
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of %d KV blocks",
                         blocks_for(end));
    }
    truncate_sequence(kv, sequence, start);
    if (start % KV_BLOCK_TOKENS != 0)
        unshare_last_block(kv, sequence);
    while (sequence->n_blocks < blocks_for(end))
        sequence->blocks[sequence->n_blocks++] = acquire_block(kv);
    sequence->held = end;
    for (int i = start / KV_BLOCK_TOKENS; i < sequence->n_blocks; i++)
        CHECK(kv->readers[sequence->blocks[i]] == 1);
    return STATUS_OK;
}

void kv_cache_truncate(struct kv_cache *kv, uint64_t id, int n_positions)
{
    struct sequence *sequence = find_sequence(kv, id);
    if (sequence)
        truncate_sequence(kv, sequence, n_positions);
}

/* Fills the list of `to`; blocks and room have been checked. */
static void share_blocks(struct kv_cache *kv, const struct sequence *from, struct sequence *to,
                         int n_positions)
{
    int n_full = n_positions / KV_BLOCK_TOKENS;
    for (int i = 0; i < n_full; i++) {
        to->blocks[to->n_blocks++] = from->blocks[i];
        kv->readers[from->blocks[i]]++;
    }
    if (n_positions % KV_BLOCK_TOKENS != 0) {
        int32_t block = acquire_block(kv);
        copy_block(kv, block, from->blocks[n_full]);
        to->blocks[to->n_blocks++] = block;
    }
    to->held = n_positions;
}

enum status kv_cache_fork(struct kv_cache *kv, uint64_t from_id, uint64_t to_id, int n_positions,
                          struct error *err)
{
    CHECK(n_positions > 0);
    struct sequence *from = find_sequence(kv, from_id);
    if (!from || from->held < n_positions)
        return error_set(err, STATUS_INVALID,
                         "fork of %d positions of sequence %llu, it holds %d here", n_positions,
                         (unsigned long long)from_id, from ? from->held : 0);
    if (find_sequence(kv, to_id))
        return error_set(err, STATUS_INVALID, "fork makes sequence %llu, which exists",
                         (unsigned long long)to_id);
    if (kv->n_sequences == kv->options.sequences_max)
        return too_many_sequences(kv, to_id, err);
    int n_needed = n_positions % KV_BLOCK_TOKENS != 0;
    if (n_needed > kv->n_free)
        return pool_used_up(kv, to_id, n_needed, err);
    struct sequence *to = add_sequence(kv, to_id);
    if (!reserve_list(to, blocks_for(n_positions))) {
        kv_cache_release(kv, to_id);
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of %d KV blocks",
                         blocks_for(n_positions));
    }
    share_blocks(kv, from, to, n_positions);
    return STATUS_OK;
}

void kv_cache_release(struct kv_cache *kv, uint64_t id)
{
    struct sequence *sequence = id != 0 ? find_sequence(kv, id) : NULL;
    if (!sequence)
        return;
    while (sequence->n_blocks > 0)
        release_block(kv, sequence->blocks[--sequence->n_blocks]);
    free(sequence->blocks);
    remove_slot(kv, (size_t)(sequence - kv->slots));
}

void kv_cache_release_all(struct kv_cache *kv)
{
    for (size_t i = 0; i < kv->n_slots; i++)
        /* Releasing moves later slots back into this one. */
        while (kv->slots[i].id != 0)
            kv_cache_release(kv, kv->slots[i].id);
    CHECK(kv->n_free == kv->options.n_blocks);
    CHECK(kv->n_sequences == 0);
}

int kv_cache_held(const struct kv_cache *kv, uint64_t id)
{
    const struct sequence *sequence = id != 0 ? find_sequence(kv, id) : NULL;
    return sequence ? sequence->held : -1;
}

const int32_t *kv_cache_blocks_view(const struct kv_cache *kv, uint64_t id)
{
    const struct sequence *sequence = id != 0 ? find_sequence(kv, id) : NULL;
    return sequence ? sequence->blocks : NULL;
}

int kv_cache_n_used(const struct kv_cache *kv)
{
    return kv->options.n_blocks - kv->n_free;
}

int kv_cache_n_sequences(const struct kv_cache *kv)
{
    return kv->n_sequences;
}

int kv_cache_readers(const struct kv_cache *kv, int block)
{
    CHECK(block >= 0);
    CHECK(block < kv->options.n_blocks);
    return kv->readers[block];
}
