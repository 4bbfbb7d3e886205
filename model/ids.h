/*
 * ids.h - a growing list of token ids.
 *
 * Owns:    its memory; {0} is an empty list, ids_fini() ends any.
 * Threads: one at a time.
 */
#ifndef MGPT_MODEL_IDS_H
#define MGPT_MODEL_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct ids {
    int32_t *ids; /* [n] */
    size_t n, capacity;
};

enum status ids_push(struct ids *list, int32_t id, struct error *err);
enum status ids_append(struct ids *list, const int32_t *ids, size_t n, struct error *err);
void ids_fini(struct ids *list); /* frees; the list is empty and usable again */

#endif
