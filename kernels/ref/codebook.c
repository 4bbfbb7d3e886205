/*
 * codebook.c - the plain twin of codebook_nearest() in kernels/codebook.h: every distance, in f64.
 */
#include "kernels/codebook.h"

static double squared_distance(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sum;
}

void codebook_nearest_ref(int32_t *codes, const float *z, const float *entries, int n, int n_codes,
                          int n_dims)
{
    for (int i = 0; i < n; i++) {
        const float *vector = z + (size_t)i * n_dims;
        double best = squared_distance(vector, entries, n_dims);
        codes[i] = 0;
        for (int code = 1; code < n_codes; code++) {
            double distance = squared_distance(vector, entries + (size_t)code * n_dims, n_dims);
            if (distance < best) {
                best = distance;
                codes[i] = code;
            }
        }
    }
}
