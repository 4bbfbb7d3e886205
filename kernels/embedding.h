/*
 * embedding.h - token ids to the rows of a table.
 */
#ifndef MGPT_KERNELS_EMBEDDING_H
#define MGPT_KERNELS_EMBEDDING_H

#include "kernels/stream.h"

/*
 * y[r] = table[ids[r]].
 *
 * y: [n_rows, hidden], table: [vocab, hidden], of `dtype`.  ids: [n_rows], host memory.
 * STATUS_INVALID: an id outside [0, vocab).
 */
enum status embedding(void *y, const int32_t *ids, const void *table, enum dtype dtype, int n_rows,
                      int hidden, int vocab, struct stream *stream);

#endif
