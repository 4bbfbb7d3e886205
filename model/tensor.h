/*
 * tensor.h - a tensor as it lies in a file: borrowed bytes, dtype, shape, and where it came from.
 */
#ifndef MGPT_MODEL_TENSOR_H
#define MGPT_MODEL_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

enum { TENSOR_RANK_MAX = 8, TENSOR_SHAPE_TEXT_BYTES = 192 };

struct tensor_view {
    const char *name; /* borrowed from the reader */
    const char *file; /* path of the file that holds it, borrowed */
    enum dtype dtype;
    int rank;
    int64_t shape[TENSOR_RANK_MAX]; /* row-major; only the first `rank` count */
    const void *data;               /* aligned to the dtype, little endian */
    size_t bytes;
};

/* Number of elements. Readers have checked that it does not overflow. */
size_t tensor_elements(const struct tensor_view *tensor);

/* "[4096, 11008]" in the caller's storage. */
const char *tensor_format_shape(char text[TENSOR_SHAPE_TEXT_BYTES], int rank, const int64_t *shape);

/* STATUS_INVALID "'file': tensor 'name' is [..], expected [..]" unless rank and shape are the ones
 * given. */
enum status tensor_expect_shape(const struct tensor_view *tensor, int rank, const int64_t *shape,
                                struct error *err);

/* STATUS_INVALID at the first NaN or infinity, naming file, tensor and place. */
enum status tensor_check_finite(const struct tensor_view *tensor, struct error *err);

#endif
