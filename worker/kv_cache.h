/*
 * kv_cache.h - keys and values of every sequence that lives on this stage: blocks of 64 positions,
 * and who reads them.
 *
 * In:      what the plans say: rows, forks, releases.
 * Out:     block lists and pools for the kernels.
 * Owns:    the device memory of all blocks, reserved once by kv_cache_create(), and the block
 *          lists.
 * Threads: the compute thread alone. Nothing here locks.
 *
 * A sequence holds positions [0, held). Its i-th block has positions [64 i, 64 i + 64).
 * kv_cache_prepare() makes room for a row at [start, start + n) and forgets what was held from
 * start on. Full blocks are shared by forks and counted; a block with two readers is never written:
 * prepare gives the sequence a block of its own first (the part before start copied), and then
 * CHECKs that each block it is about to hand out for writing has one reader. A stage without layers
 * keeps the same books without memory, so that all stages run out at the same plan.
 */
#ifndef MGPT_WORKER_KV_CACHE_H
#define MGPT_WORKER_KV_CACHE_H

#include "kernels/kv.h"

struct kv_cache;

struct kv_cache_options {
    int n_layers;      /* layers whose attention part is in this stage; 0 is legal */
    int n_blocks;      /* blocks in the pool of each layer */
    int sequences_max; /* sequences alive at once */
    struct attention_shape shape;
};

/* Bytes of the pools for these options; SIZE_MAX when they do not fit a size_t. */
size_t kv_cache_bytes(const struct kv_cache_options *options);

/*
 * Reserves the pools; block lists grow with the sequences (4 bytes for 64 positions).
 *
 * stream: borrowed until kv_cache_destroy().
 * STATUS_INVALID: an option is out of range.  STATUS_NOMEM: fewer than kv_cache_bytes(options)
 * bytes free.
 */
enum status kv_cache_create(struct kv_cache **out, const struct kv_cache_options *options,
                            struct stream *stream, struct error *err);
void kv_cache_destroy(struct kv_cache *kv); /* NULL is fine */

/* The pool of one of this stage's layers, counted from 0. */
struct kv_layer kv_cache_layer(const struct kv_cache *kv, int layer_index);

/*
 * Makes positions [start, start + n_positions) of `sequence` writable and forgets what it held from
 * start on; from now on it holds start + n_positions. A sequence that is not known is made, if
 * start is 0.
 *
 * STATUS_INVALID: start is beyond what it holds.  STATUS_NOMEM: the pool, or the number of
 * sequences, is used up. On error nothing has changed.
 */
enum status kv_cache_prepare(struct kv_cache *kv, uint64_t sequence, int start, int n_positions,
                             struct error *err);

/* Forgets positions from n_positions on; blocks behind them are freed. More than it holds is fine,
 * unknown too. */
void kv_cache_truncate(struct kv_cache *kv, uint64_t sequence, int n_positions);

/*
 * Makes `to` hold the first n_positions of `from`: full blocks shared, the rest of them copied into
 * a new block.
 *
 * STATUS_INVALID: `from` is not known or holds fewer, `to` exists.  STATUS_NOMEM as above.  On
 * error nothing has changed.
 */
enum status kv_cache_fork(struct kv_cache *kv, uint64_t from, uint64_t to, int n_positions,
                          struct error *err);

/* Frees a sequence; blocks without another reader go back to the pool. An unknown one is fine. */
void kv_cache_release(struct kv_cache *kv, uint64_t sequence);
void kv_cache_release_all(struct kv_cache *kv);

/* Positions held, -1 for an unknown sequence. */
int kv_cache_held(const struct kv_cache *kv, uint64_t sequence);

/* The block list, valid until the sequence is changed; NULL for an unknown one. */
const int32_t *kv_cache_blocks_view(const struct kv_cache *kv, uint64_t sequence);

int kv_cache_n_used(const struct kv_cache *kv); /* blocks with a reader */
int kv_cache_n_sequences(const struct kv_cache *kv);
int kv_cache_readers(const struct kv_cache *kv, int block);

#endif
