/*
 * linear.h - dense products with weights that stay: y = x W^T + bias.
 *
 * In:    rows of activations.   Out: rows of the next activations, or logits.
 * Owns:  a linear_weight holds its matrix in the layout the code path wants, packed once while
 * loading. Several projections of the same x (q, k, v; gate, up) go into one linear_weight, part
 * after part: one launch then reads x once and computes all of them. Row-invariant: the bits of a
 * row depend on that row and W alone; the order of the sum over n_in is fixed.
 */
#ifndef MGPT_KERNELS_LINEAR_H
#define MGPT_KERNELS_LINEAR_H

#include <stdbool.h>

#include "kernels/stream.h"

struct linear_weight;

struct linear_weight_options {
    int n_out, n_in;
    enum dtype
        dtype;     /* compute type, of x, of y and of the packed matrix: DTYPE_F32 or DTYPE_BF16 */
    bool has_bias; /* kept in f32 */
};

/* Bytes that linear_weight_create reserves for these options. */
size_t linear_weight_bytes(const struct linear_weight_options *options);

/*
 * Reserves the matrix, all zero (bias too). The caller ends it with linear_weight_destroy() before
 * the stream. STATUS_INVALID: a size below 1 or a dtype that is no compute type.  STATUS_NOMEM.
 */
enum status linear_weight_create(struct linear_weight **out,
                                 const struct linear_weight_options *options, struct stream *stream,
                                 struct error *err);
void linear_weight_destroy(struct linear_weight *weight); /* NULL is fine */

/*
 * Packs rows [first_out, first_out + n_rows) of the matrix from host memory.
 * src: [n_rows, n_in] row-major of src_dtype (any), of any alignment; it may be a mapped file.
 */
void linear_weight_set(struct linear_weight *weight, int first_out, int n_rows, const void *src,
                       enum dtype src_dtype);
void linear_weight_set_bias(struct linear_weight *weight, int first_out, int n, const void *src,
                            enum dtype src_dtype);

/*
 * A device multiplies with a few numbers of rows alone: x and y of linear() have room for this
 * many, and what y holds behind n_rows is of no meaning. At least n_rows, and not less for more
 * rows. On the CPU n_rows.
 */
int linear_padded_rows(int n_rows, const struct stream *stream);

/*
 * y = x W^T + bias, sums in f32 from the first to the last input, rounded once to the compute type.
 *
 * y: [n_rows, n_out], x: [n_rows, n_in], both of the weight's dtype, packed without gaps; they do
 * not overlap.
 */
enum status linear(void *y, const void *x, const struct linear_weight *weight, int n_rows,
                   struct stream *stream);

/*
 * To be called while loading, after the matrix was set, for each n that linear_range_f32() will be
 * asked for: a device chooses and tests how it multiplies, which takes memory for a while.
 * STATUS_UNSUPPORTED: no way passes the test.
 */
enum status linear_prepare_range(const struct linear_weight *weight, int n, struct error *err);

/*
 * Only outputs [first_out, first_out + n), unrounded: y is f32 [n_rows, n]. For the head.
 */
enum status linear_range_f32(float *y, const void *x, const struct linear_weight *weight,
                             int first_out, int n, int n_rows, struct stream *stream);

#endif
