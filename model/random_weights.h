/*
 * random_weights.h - normal numbers fast, as a function of seed, tensor name and place.
 *
 * A table of 65,536 quantiles of the normal distribution, indexed by 16 random bits: exact enough
 * for weights, and one multiplication chain for four of them.
 */
#ifndef MGPT_MODEL_RANDOM_WEIGHTS_H
#define MGPT_MODEL_RANDOM_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/error.h"

struct random_weights;

enum status random_weights_create(struct random_weights **out, struct error *err);
void random_weights_destroy(struct random_weights *weights); /* NULL is fine */

/* The tensor to fill next: numbers of this mean and standard deviation. */
void random_weights_start(struct random_weights *weights, uint64_t seed, const char *tensor_name,
                          float mean, float deviation);

/* Fills dst with the tensor's next n numbers; n is a multiple of 4 except in the last call for a
 * tensor. */
void random_weights_fill_bf16(struct random_weights *weights, bf16 *dst, size_t n);
void random_weights_fill_f32(struct random_weights *weights, float *dst, size_t n);

/* A well mixed 64-bit function of its argument (splitmix64). */
uint64_t random_weights_mix(uint64_t value);

#endif
