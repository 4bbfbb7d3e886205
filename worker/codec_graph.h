/*
 * codec_graph.h - the order of a VQ-GAN's layers: pixels to codes, codes to pixels.
 *
 * Pictures between layers live in a few slots of memory. The same walk is done twice: once without
 * memory, which only notes how large each slot becomes, then in earnest. So plan and run cannot
 * disagree.
 */
#ifndef MGPT_WORKER_CODEC_GRAPH_H
#define MGPT_WORKER_CODEC_GRAPH_H

#include "worker/codec_network.h"

enum { CODEC_SLOTS = 5 }; /* attention holds the most at once: x, q, k, v and the keys in panels */

struct codec_plan {
    size_t slot_bytes[CODEC_SLOTS];
    size_t norm_bytes; /* scale, shift and workspace of a group_norm */
    size_t bytes;      /* of all together */
};

/* What encoding or decoding a picture of this size needs. */
void codec_plan_encode(struct codec_plan *plan, const struct codec_network *network, int width,
                       int height);
void codec_plan_decode(struct codec_plan *plan, const struct codec_network *network, int width,
                       int height);

/*
 * codes [height / patch * width / patch] of pixels [height, width, 3] in [-1, 1]; both in host
 * memory. memory: plan->bytes of the network's stream.  STATUS_INVALID: the encoder's output is not
 * finite.
 */
enum status codec_run_encode(int32_t *codes, const float *pixels,
                             const struct codec_network *network, const struct codec_plan *plan,
                             void *memory, int width, int height, struct error *err);

/* pixels [height, width, 3] of codes, likewise; 0 <= code < n_embed. The pixels are as the decoder
 * gives them. */
enum status codec_run_decode(float *pixels, const int32_t *codes,
                             const struct codec_network *network, const struct codec_plan *plan,
                             void *memory, int width, int height, struct error *err);

#endif
