/*
 * codebook.c - nearest entries by products of vectors with panels of entries (codec_launch.h).
 */
#include "kernels/codec_launch.h"

#include <math.h>

#include "kernels/cpu/tile_f32.h"

enum { VECTORS = 48 }; /* a thread compares with each panel while it is in the cache */

struct job {
    int32_t *codes;
    const float *z;
    const struct codebook *codebook;
    int n;
    const struct tile_f32 *kernels;
};

static const float *entry_view(const struct codebook *codebook, int code)
{
    return codebook->panels +
           (size_t)(code / TILE_F32_COLUMNS) * codebook->n_dims * TILE_F32_COLUMNS +
           code % TILE_F32_COLUMNS;
}

/* The nearest entries of n vectors (at most VECTORS). Codes rise, so the first of equal distances
 * stays. */
static void find_nearest(const struct job *job, int32_t *codes, const float *z, int n)
{
    const struct codebook *codebook = job->codebook;
    float products[VECTORS * TILE_F32_COLUMNS], best[VECTORS];
    for (int i = 0; i < n; i++) {
        best[i] = INFINITY;
        codes[i] = 0;
    }
    for (int panel = 0; panel < codebook->n_panels; panel++) {
        int first = panel * TILE_F32_COLUMNS;
        tile_f32_multiply(job->kernels, products, TILE_F32_COLUMNS, z, codebook->n_dims,
                          entry_view(codebook, first), TILE_F32_COLUMNS, n, TILE_F32_COLUMNS,
                          codebook->n_dims, false);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < TILE_F32_COLUMNS; j++) {
                float distance =
                    codebook->squares[first + j] - 2.0f * products[i * TILE_F32_COLUMNS + j];
                if (distance < best[i]) {
                    best[i] = distance;
                    codes[i] = first + j;
                }
            }
    }
}

static void find_share(void *context, int thread_index, int n_threads)
{
    const struct job *job = context;
    int64_t first, last;
    stream_share(job->n, thread_index, n_threads, &first, &last);
    for (int64_t i = first; i < last; i += VECTORS)
        find_nearest(job, job->codes + i, job->z + i * job->codebook->n_dims,
                     last - i < VECTORS ? (int)(last - i) : VECTORS);
}

enum status codebook_nearest_cpu(int32_t *codes, const float *z, const struct codebook *codebook,
                                 int n, struct stream *stream)
{
    struct job job = {
        .codes = codes, .z = z, .codebook = codebook, .n = n, .kernels = tile_f32_of(stream)};
    stream_parallel(stream, find_share, &job);
    return STATUS_OK;
}

void codebook_lookup_cpu(float *z, const int32_t *codes, const struct codebook *codebook, int n)
{
    for (int i = 0; i < n; i++) {
        const float *entry = entry_view(codebook, codes[i]);
        for (int d = 0; d < codebook->n_dims; d++, z++)
            *z = entry[(size_t)d * TILE_F32_COLUMNS];
    }
}
