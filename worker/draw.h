/*
 * draw.h - draws from given logits, for `mgpt inspect sample`: the sampler of the last stage,
 * without a model in memory.
 *
 * Owns:    the vocabulary of the model folder, read at the first draw.
 * Threads: the compute thread.
 */
#ifndef MGPT_WORKER_DRAW_H
#define MGPT_WORKER_DRAW_H

#include "kernels/stream.h"
#include "proto/mgpt.pb-c.h"

struct draw;

/* model_dir, stream: borrowed. Reads nothing yet. STATUS_NOMEM. */
enum status draw_create(struct draw **out, const char *model_dir, struct stream *stream,
                        struct error *err);
void draw_destroy(struct draw *draw); /* NULL is fine */

/*
 * ids[i] = the draw with seed message->first_seed + i; [message->n_seeds] in the caller's storage.
 * STATUS_INVALID: a field is wrong, or the logits are NaN; or as the model folder's files say.
 */
enum status draw_run(struct draw *draw, const Mgpt__Draw *message, uint32_t *ids,
                     struct error *err);

/* Is the message's size one that draw_run takes: checked before room for ids is made. */
enum status draw_check(const Mgpt__Draw *message, struct error *err);

#endif
