/*
 * conv2d.c - the plain twin of kernels/conv2d.h: every output pixel by its definition.
 */
#include "kernels/conv2d.h"

#include <math.h>

static float read_input(const float *pixel, int channel, const struct conv2d_norm *norm)
{
    float x = pixel[channel];
    if (!norm)
        return x;
    float v = x * norm->scale[channel] + norm->shift[channel];
    return norm->swish ? v / (1.0f + expf(-v)) : v;
}

/* The product of one kernel with the pixels around (row, column); up-sampled pixels are found by
 * halving. */
static float convolve(const float *x, const struct conv2d_shape *shape, const float *weight,
                      const struct conv2d_norm *norm, int width, int height, int row, int column)
{
    int zoom = shape->kind == CONV2D_UP ? 2 : 1;
    int size = shape->kernel;
    float sum = 0.0f;
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            int r = row + i, c = column + j;
            if (r < 0 || c < 0 || r >= height * zoom || c >= width * zoom)
                continue;
            const float *pixel = x + ((size_t)(r / zoom) * width + c / zoom) * shape->n_in;
            for (int channel = 0; channel < shape->n_in; channel++)
                sum += read_input(pixel, channel, norm) * weight[(channel * size + i) * size + j];
        }
    return sum;
}

void conv2d_ref(float *y, const float *x, const struct conv2d_shape *shape, const float *weight,
                const float *bias, const struct conv2d_norm *norm, const float *residual, int width,
                int height)
{
    int stride = shape->kind == CONV2D_DOWN ? 2 : 1;
    int border = shape->kind == CONV2D_DOWN ? 0 : shape->kernel / 2;
    int rows = conv2d_side(shape->kind, height), columns = conv2d_side(shape->kind, width);
    size_t kernel_floats = (size_t)shape->n_in * shape->kernel * shape->kernel;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++)
            for (int n = 0; n < shape->n_out; n++) {
                size_t at = ((size_t)r * columns + c) * shape->n_out + n;
                float sum = convolve(x, shape, weight + n * kernel_floats, norm, width, height,
                                     r * stride - border, c * stride - border);
                y[at] = sum + bias[n] + (residual ? residual[at] : 0.0f);
            }
}
