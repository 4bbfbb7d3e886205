/*
 * codebook.h - vectors to the nearest entry of a codebook and back, f32.
 *
 * Nearest is the smallest |e|^2 - 2 z e (the distance without |z|^2, which all entries share); of
 * equal ones the smallest index. Each product is one chain over the dimensions, so the number of
 * vectors and threads changes nothing.
 */
#ifndef MGPT_KERNELS_CODEBOOK_H
#define MGPT_KERNELS_CODEBOOK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct stream;

/* Opaque: entries packed for the stream's device, and the square of each. */
struct codebook;

/* entries: [n_codes, n_dims], copied. STATUS_INVALID: a size below 1.  STATUS_NOMEM.  On error *out
 * is NULL. */
enum status codebook_create(struct codebook **out, const float *entries, int n_codes, int n_dims,
                            struct stream *stream, struct error *err);
void codebook_destroy(struct codebook *codebook); /* NULL is fine */
size_t codebook_bytes(const struct codebook *codebook);

/* codes: [n], device memory as z [n, n_dims]. A z that is not finite gets code 0. */
enum status codebook_nearest(int32_t *codes, const float *z, const struct codebook *codebook, int n,
                             struct stream *stream);

/* z: [n, n_dims] = the entries of codes [n], host memory, each 0 <= code < n_codes (CHECK). */
enum status codebook_lookup(float *z, const int32_t *codes, const struct codebook *codebook, int n,
                            struct stream *stream);

/* The plain twin of codebook_nearest (ref/codebook.c) on entries [n_codes, n_dims]. */
void codebook_nearest_ref(int32_t *codes, const float *z, const float *entries, int n, int n_codes,
                          int n_dims);

#endif
