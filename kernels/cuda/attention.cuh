/*
 * attention.cuh - what the kernels of attention share.
 *
 * A block of threads takes one tile of rows, one kv head and one split of 256 positions, and writes a partial result for
 * each query (row and head): the weighted values, the largest score, the sum of exponentials. A second kernel merges a
 * query's splits in order. So the bits of a row depend on its own keys alone, and K and V are read once for all rows of
 * a tile and all heads of a group.
 */
#ifndef MGPT_KERNELS_CUDA_ATTENTION_CUH
#define MGPT_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/row_table.cuh"

struct attention_arguments {
    void *y;
    const void *qkv;
    int n_heads, n_kv_heads, head_dim;
    float scale;
    const struct row_entry *entries;
    const struct row_tile *tiles; /* of the chunk */
    const int32_t *blocks;
    struct kv_place kv;
    float *partials;
};

/* Rows of q, k and v together. */
static __device__ __forceinline__ size_t qkv_row(const struct attention_arguments &a)
{
    return (size_t)(a.n_heads + 2 * a.n_kv_heads) * (size_t)a.head_dim;
}

static __device__ __forceinline__ const char *kv_keys(const struct attention_arguments &a,
                                                      const struct row_tile &tile, int block_of_sequence,
                                                      int kv_head)
{
    size_t block = (size_t)a.blocks[tile.blocks + block_of_sequence];
    return a.kv.pool + block * a.kv.block_bytes + (size_t)kv_head * a.kv.head_bytes;
}

/* Where query (entry, head) leaves what split `split` gave. */
static __device__ __forceinline__ float *partial_of(const struct attention_arguments &a,
                                                    const struct row_entry &entry, int head, int split)
{
    size_t unit = (size_t)entry.partials + (size_t)head * (size_t)entry.n_splits + (size_t)split;
    return a.partials + unit * partial_floats(a.head_dim);
}

/* The tensor-core version; STATUS_UNSUPPORTED for groups of more than TILE_QUERIES heads. */
enum status attention_launch_bf16(struct cuda_device *cuda, const struct attention_arguments *a, dim3 grid);

#endif
