/*
 * group_norm.c - the plain twin of kernels/group_norm.h: mean, then variance, in f64.
 */
#include "kernels/group_norm.h"

#include <math.h>

static void group_moments(double *mean, double *variance, const float *x, int n_pixels,
                          int n_channels, int first, int count)
{
    double sum = 0, squares = 0, n = (double)n_pixels * count;
    for (int p = 0; p < n_pixels; p++)
        for (int c = first; c < first + count; c++)
            sum += x[(size_t)p * n_channels + c];
    *mean = sum / n;
    for (int p = 0; p < n_pixels; p++)
        for (int c = first; c < first + count; c++) {
            double d = x[(size_t)p * n_channels + c] - *mean;
            squares += d * d;
        }
    *variance = squares / n;
}

void group_norm_ref(float *scale, float *shift, const float *x, const float *weight,
                    const float *bias, int n_pixels, int n_channels, int n_groups, float eps)
{
    int count = n_channels / n_groups;
    for (int first = 0; first < n_channels; first += count) {
        double mean, variance;
        group_moments(&mean, &variance, x, n_pixels, n_channels, first, count);
        for (int c = first; c < first + count; c++) {
            double factor = weight[c] / sqrt(variance + eps);
            scale[c] = (float)factor;
            shift[c] = (float)(bias[c] - mean * factor);
        }
    }
}
