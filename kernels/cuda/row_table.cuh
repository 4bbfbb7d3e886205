/*
 * row_table.cuh - the rows of a micro-batch as kernels read them: a list of rows, a list of tiles, the block lists.
 *
 * In:      the segments of a launch, host memory.   Out: device memory, the same for all layers of a step.
 * A table is made for each launch and sent only when it differs from the one that is there, so once a step. Numbers of
 * rows, tiles and splits are padded, so that steps of nearly the same size launch the same.
 */
#ifndef MGPT_KERNELS_CUDA_ROW_TABLE_CUH
#define MGPT_KERNELS_CUDA_ROW_TABLE_CUH

#include "kernels/cuda/cuda.cuh"

enum { TILE_QUERIES = 64 }; /* rows of a tile times heads of a group: at most this many */

struct row_entry {
    int32_t row;      /* of qkv and y; below 0: nothing, behind the last entry up to a padded number */
    int32_t position; /* in its sequence */
    int32_t blocks;   /* where its sequence's block list begins */
    int32_t n_splits; /* of its tile: partial results of a head lie this far apart */
    int64_t partials; /* its first partial result, counted within the chunk; n_heads * n_splits follow */
};

/* Consecutive rows of one segment. */
struct row_tile {
    int32_t first_entry, n_rows;
    int32_t start; /* position of the first row */
    int32_t blocks;
};

/* Tiles whose partial results fit the device's memory at once; n_splits: of the longest, or more. */
struct row_chunk {
    int first_tile, n_tiles, first_entry, n_entries, n_splits;
};

enum { ROW_CHUNKS_MAX = 512 };

struct row_table_view {
    const struct row_entry *entries; /* device */
    const struct row_tile *tiles;    /* device */
    const int32_t *blocks;           /* device */
    int n_entries, n_chunks;
    const struct row_chunk *chunks; /* host */
    uint64_t likeness; /* equal: launches with this table are equal but for what it holds; 0: equal to none */
};

/* STATUS_NOMEM: more rows than CUDA_TABLE_BYTES hold. The view is valid until the next call. */
enum status row_table_get(struct row_table_view *out, struct cuda_device *cuda, const struct attention_shape *shape,
                          const struct kv_segment *segments, int n_segments);

/* Floats of a partial result: the weighted values, the largest score, the sum of exponentials. */
static __host__ __device__ __forceinline__ size_t partial_floats(int head_dim)
{
    return (size_t)head_dim + 2;
}

/* A KV block on this device: for each kv head its keys [64][head_dim], then its values [64][head_dim]. */
struct kv_place {
    char *pool;
    size_t block_bytes, head_bytes, value_bytes; /* value_bytes: from a head's keys to its values */
};

static inline struct kv_place kv_place_of(const struct kv_layer *kv, const struct attention_shape *shape)
{
    size_t value_bytes = (size_t)KV_BLOCK_TOKENS * (size_t)shape->head_dim * dtype_bytes(shape->dtype);
    struct kv_place place = {(char *)kv->pool, kv_block_bytes(shape), 2 * value_bytes, value_bytes};
    return place;
}

#endif
