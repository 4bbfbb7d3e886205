/*
 * stage_weights.h - the weights of one stage's units, in the form the kernels want.
 *
 * In:      a checkpoint.
 * Out:     device memory and packed matrices, read-only from then on.
 * Owns:    everything; nothing of the mapped files stays resident (pages are dropped after each
 *          unit).
 * Threads: the compute thread.
 */
#ifndef MGPT_WORKER_STAGE_WEIGHTS_H
#define MGPT_WORKER_STAGE_WEIGHTS_H

#include "kernels/linear.h"
#include "model/checkpoint_units.h"

/* The two parts of a layer. Vectors are f32 in device memory, whatever the compute type. */
struct attention_weights {
    float *norm;                 /* [hidden] */
    float *q_norm, *q_norm_bias; /* [n_heads, head_dim] */
    float *k_norm, *k_norm_bias; /* [n_kv_heads, head_dim] */
    struct linear_weight *qkv;   /* q, k, v below each other */
    struct linear_weight *o;
};

struct feed_forward_weights {
    float *norm;                   /* [hidden] */
    struct linear_weight *gate_up; /* gate, up below each other */
    struct linear_weight *down;
};

struct stage_weights {
    struct model_config config;
    enum dtype compute;
    struct stream *stream; /* borrowed */
    int first_unit, last_unit;
    int first_part, n_parts; /* of them, the parts of layers: from unit first_part on */
    void *embedding; /* [vocab, hidden] of the compute type; NULL when unit 0 is elsewhere */
    struct unit_layers attention_layers, feed_forward_layers; /* whose parts are here */
    struct attention_weights *attention;                      /* [attention_layers.n] */
    struct feed_forward_weights *feed_forward;                /* [feed_forward_layers.n] */
    float *final_norm;          /* [hidden]; NULL when the head is elsewhere */
    struct linear_weight *head; /* [vocab, hidden] */
    size_t bytes;               /* memory held */
    size_t file_bytes;          /* of the same tensors in the files */
};

/*
 * Loads units [first_unit, last_unit]. checkpoint is needed only during the call; every view of it
 * ends.
 *
 * STATUS_INVALID also for a number that is not finite, naming file and tensor. On error *out is
 * NULL.
 */
enum status stage_weights_create(struct stage_weights **out, struct checkpoint *checkpoint,
                                 int first_unit, int last_unit, enum dtype compute,
                                 struct stream *stream, struct error *err);
void stage_weights_destroy(struct stage_weights *weights); /* NULL is fine */

#endif
