/*
 * histogram.c - three tables of bounds.
 */
#include "daemon/histogram.h"

#include <string.h>

/* Wide enough for pictures of minutes; the upper part is vLLM's. */
static const double long_s[] = {0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1,   1.5, 2,   2.5,  5,   10,
                                15,   20,   30,  40,  50,  60,  120, 240, 480, 1920, 7680};
static const double short_s[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                 0.025,  0.05,    0.075,  0.1,   0.15,   0.2,   0.3,
                                 0.4,    0.5,     0.75,   1,     2.5,    5,     10};
static const double tokens[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 16384};

enum {
    N_LONG = sizeof(long_s) / sizeof(long_s[0]),
    N_SHORT = sizeof(short_s) / sizeof(short_s[0]),
    N_TOKENS = sizeof(tokens) / sizeof(tokens[0])
};
_Static_assert((int)N_LONG <= (int)HISTOGRAM_BUCKETS_MAX, "the table fits");
_Static_assert((int)N_SHORT <= (int)HISTOGRAM_BUCKETS_MAX, "the table fits");

const double *histogram_bounds(enum histogram_kind kind, int *n)
{
    switch (kind) {
    case HISTOGRAM_SHORT_S:
        *n = N_SHORT;
        return short_s;
    case HISTOGRAM_TOKENS:
        *n = N_TOKENS;
        return tokens;
    default:
        *n = N_LONG;
        return long_s;
    }
}

void histogram_init(struct histogram *histogram, enum histogram_kind kind)
{
    memset(histogram, 0, sizeof(*histogram));
    histogram->kind = kind;
}

void histogram_add(struct histogram *histogram, double value)
{
    int n;
    const double *bounds = histogram_bounds(histogram->kind, &n);
    int i = 0;
    while (i < n && value > bounds[i])
        i++;
    if (i == n)
        i = HISTOGRAM_BUCKETS_MAX;
    histogram->counts[i]++;
    histogram->n++;
    histogram->sum += value;
}
