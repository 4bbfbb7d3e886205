/*
 * sample.h - from logits to a token: guidance, allowed set, top-k, temperature and a draw that is a
 * function of place.
 *
 * Gumbel-max: the token is argmax(logit / T + g) over the tokens that are kept, ties to the
 * smallest id, with g = -log(-log(u)), u = (top 24 bits + 0.5) * 2^-24 of word id % 4 of
 * Philox4x32-10 with key = seed (low word first) and counter = (id / 4, ordinal, picture_index,
 * SAMPLE_DOMAIN_TOKEN). All of it in double with a logarithm of our own, so the same logits give
 * the same token on every machine. Nothing else is random.
 */
#ifndef MGPT_KERNELS_SAMPLE_H
#define MGPT_KERNELS_SAMPLE_H

#include "kernels/stream.h"

enum { SAMPLE_DOMAIN_TOKEN = 1 };

/* What the noise of an id is a function of. */
struct gumbel_place {
    uint32_t key[2];                             /* the seed, low word first */
    uint32_t ordinal, picture_index, domain_tag; /* counter words 1 to 3 */
};

/* Logits and masks lie in device memory, lists in host memory. */
struct sample_request {
    const float *logits;        /* [n] entry i belongs to id first_id + i */
    const float *unconditional; /* [n] l = u + guidance * (c - u); NULL: logits as they are */
    int first_id, n;
    const uint8_t *allowed; /* [n] nonzero where the id may be drawn; NULL: all */
    const int32_t *listed;  /* [n_listed] only these, all in [first_id, first_id + n); NULL: all */
    const int32_t *forbidden; /* [n_forbidden] not these, ascending; none beside a list */
    int n_listed, n_forbidden;
    float guidance;
    float temperature; /* 0: the largest logit, ties to the smallest id, whatever top_k is */
    int top_k;         /* equals of the k-th largest stay; below 1 or beyond the allowed: all */
    uint64_t seed;
    uint32_t ordinal, picture_index;
};

/*
 * ids[i] = the draw of requests[i]; requests are independent of each other.
 *
 * STATUS_INVALID: NaN among the allowed logits after guidance (the text names request and id), no
 * allowed id, a negative or non-finite temperature or guidance. STATUS_NOMEM. STATUS_INTERNAL:
 * the device failed. ids of the requests before the failed one may be written.
 */
enum status sample(int32_t *ids, const struct sample_request *requests, int n_requests,
                   struct stream *stream, struct error *err);

/* The logarithm used: x in (0, inf), normal; within 2 units in the last place; the same bits
 * everywhere. */
double sample_log(double x);

#endif
