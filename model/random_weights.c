/*
 * random_weights.c - quantiles once, then look-ups.
 */
#include "model/random_weights.h"

#include <math.h>
#include <stdlib.h>

enum { N_QUANTILES = 1 << 16 };

struct random_weights {
    float quantiles[N_QUANTILES]; /* of the standard normal distribution */
    float f32[N_QUANTILES];       /* scaled for the tensor */
    bf16 rounded[N_QUANTILES];
    uint64_t state;
};

/* splitmix64: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators". */
uint64_t random_weights_mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The x with P(X < x) = p, by bisection: it runs once, and needs no second formula. */
static double quantile(double p)
{
    double low = -6, high = 6;
    for (int i = 0; i < 40; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / 1.4142135623730951) < p)
            low = middle;
        else
            high = middle;
    }
    return low;
}

enum status random_weights_create(struct random_weights **out, struct error *err)
{
    *out = malloc(sizeof(**out));
    if (!*out)
        return error_set(err, STATUS_NOMEM, "cannot allocate the table of random numbers");
    for (int i = 0; i < N_QUANTILES / 2; i++) {
        float x = (float)quantile((i + 0.5) / N_QUANTILES);
        (*out)->quantiles[i] = x;
        (*out)->quantiles[N_QUANTILES - 1 - i] = -x;
    }
    (*out)->state = 0;
    return STATUS_OK;
}

void random_weights_destroy(struct random_weights *weights)
{
    free(weights);
}

void random_weights_start(struct random_weights *weights, uint64_t seed, const char *tensor_name,
                          float mean, float deviation)
{
    uint64_t state = random_weights_mix(seed);
    for (const char *c = tensor_name; *c; c++)
        state = random_weights_mix(state ^ (unsigned char)*c);
    weights->state = state;
    for (int i = 0; i < N_QUANTILES; i++) {
        weights->f32[i] = mean + deviation * weights->quantiles[i];
        weights->rounded[i] = bf16_from_f32(weights->f32[i]);
    }
}

void random_weights_fill_bf16(struct random_weights *weights, bf16 *dst, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        uint64_t bits = random_weights_mix(weights->state++);
        for (size_t k = i; k < i + 4 && k < n; k++, bits >>= 16)
            dst[k] = weights->rounded[bits & 0xffff];
    }
}

void random_weights_fill_f32(struct random_weights *weights, float *dst, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        uint64_t bits = random_weights_mix(weights->state++);
        for (size_t k = i; k < i + 4 && k < n; k++, bits >>= 16)
            dst[k] = weights->f32[bits & 0xffff];
    }
}
