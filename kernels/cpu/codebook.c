/*
 * codebook.c - nearest entries by products of vectors with panels of entries.
 *
 * Entries lie in panels [n_dims, TILE_F32_COLUMNS] like the weights of conv2d; the last panel is
 * filled up with entries that no vector can prefer (their square is infinite).
 */
#include "kernels/codebook.h"

#include <math.h>
#include <stdlib.h>

#include "base/check.h"
#include "kernels/cpu/tile_f32.h"
#include "kernels/stream.h"

enum { VECTORS = 48 }; /* a thread compares with each panel while it is in the cache */

struct codebook {
    struct stream *stream; /* whose memory it is */
    int n_codes, n_dims, n_panels;
    size_t bytes;
    float *panels;  /* [n_panels, n_dims, TILE_F32_COLUMNS] */
    float *squares; /* [n_panels * TILE_F32_COLUMNS] |e|^2; infinite beyond n_codes */
};

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

static void pack_entry(struct codebook *codebook, const float *entry, int code)
{
    float *to = (float *)entry_view(codebook, code);
    double square = 0;
    for (int d = 0; d < codebook->n_dims; d++) {
        to[(size_t)d * TILE_F32_COLUMNS] = entry[d];
        square += (double)entry[d] * entry[d];
    }
    codebook->squares[code] = (float)square;
}

enum status codebook_create(struct codebook **out, const float *entries, int n_codes, int n_dims,
                            struct stream *stream, struct error *err)
{
    *out = NULL;
    if (n_codes < 1 || n_dims < 1)
        return error_set(err, STATUS_INVALID, "codebook of %d entries of %d numbers", n_codes,
                         n_dims);
    struct codebook *codebook = calloc(1, sizeof(*codebook));
    if (!codebook)
        return error_set(err, STATUS_NOMEM, "cannot allocate the header of the codebook");
    codebook->stream = stream;
    codebook->n_codes = n_codes;
    codebook->n_dims = n_dims;
    codebook->n_panels = (n_codes - 1) / TILE_F32_COLUMNS + 1;
    size_t panel_floats = (size_t)codebook->n_panels * n_dims * TILE_F32_COLUMNS;
    size_t n_columns = (size_t)codebook->n_panels * TILE_F32_COLUMNS;
    codebook->bytes = sizeof(float) * (panel_floats + n_columns);
    enum status st = stream_alloc(stream, (void **)&codebook->panels, codebook->bytes, err);
    if (st != STATUS_OK) {
        codebook_destroy(codebook);
        return error_wrap(err, st, "cannot pack a codebook of %d entries", n_codes);
    }
    codebook->squares = codebook->panels + panel_floats;
    for (int code = 0; code < n_codes; code++)
        pack_entry(codebook, entries + (size_t)code * n_dims, code);
    for (size_t i = n_codes; i < n_columns; i++)
        codebook->squares[i] = INFINITY;
    *out = codebook;
    return STATUS_OK;
}

void codebook_destroy(struct codebook *codebook)
{
    if (!codebook)
        return;
    stream_free(codebook->stream, codebook->panels, codebook->bytes);
    free(codebook);
}

size_t codebook_bytes(const struct codebook *codebook)
{
    return codebook->bytes;
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

enum status codebook_nearest(int32_t *codes, const float *z, const struct codebook *codebook, int n,
                             struct stream *stream)
{
    struct job job = {
        .codes = codes, .z = z, .codebook = codebook, .n = n, .kernels = tile_f32_of(stream)};
    stream_parallel(stream, find_share, &job);
    return STATUS_OK;
}

enum status codebook_lookup(float *z, const int32_t *codes, const struct codebook *codebook, int n,
                            struct stream *stream)
{
    (void)stream;
    for (int i = 0; i < n; i++) {
        CHECK(codes[i] >= 0);
        CHECK(codes[i] < codebook->n_codes);
        const float *entry = entry_view(codebook, codes[i]);
        for (int d = 0; d < codebook->n_dims; d++, z++)
            *z = entry[(size_t)d * TILE_F32_COLUMNS];
    }
    return STATUS_OK;
}
