/*
 * histogram.h - counts of a figure by bucket, as Prometheus wants them.
 */
#ifndef MGPT_DAEMON_HISTOGRAM_H
#define MGPT_DAEMON_HISTOGRAM_H

#include <stdint.h>

enum { HISTOGRAM_BUCKETS_MAX = 24 };

enum histogram_kind {
    HISTOGRAM_LONG_S,  /* whole requests: 0.01 s to two hours */
    HISTOGRAM_SHORT_S, /* single tokens: 0.1 ms to 10 s */
    HISTOGRAM_TOKENS   /* 1 to 16384 */
};

/* Plain data: copy it freely. */
struct histogram {
    enum histogram_kind kind;
    uint64_t counts[HISTOGRAM_BUCKETS_MAX + 1]; /* not cumulative; the last is above all bounds */
    uint64_t n;
    double sum;
};

void histogram_init(struct histogram *histogram, enum histogram_kind kind);
void histogram_add(struct histogram *histogram, double value);

/* Upper bounds of the buckets, ascending; *n of them. */
const double *histogram_bounds(enum histogram_kind kind, int *n);

#endif
