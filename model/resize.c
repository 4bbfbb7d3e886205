/*
 * resize.c - filters as tables of 22-bit fixed-point weights, applied along rows, then along
 * columns.
 *
 * What must be equal to Pillow to the last bit: the span of input pixels of each output pixel, the
 * weights (in double, normalised, then rounded away from zero), the passes with rounding to 8 bits
 * between them (a pass that changes nothing is skipped), and the arithmetic of premultiplied alpha.
 */
#include "model/resize.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* 32 bits less 8 of the pixel and 2 for sums that pass 1. */
enum { PRECISION_BITS = 32 - 8 - 2 };

static double box(double x)
{
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

/* Keys 1981, a = -0.5. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

struct filter {
    double (*weight)(double x);
    double support;
};

static const struct filter filters[] = {
    [RESIZE_BOX] = {.weight = box, .support = 0.5},
    [RESIZE_BICUBIC] = {.weight = bicubic, .support = 2.0},
};

/* Of each wanted output pixel: which input pixels it takes and with which weights. */
struct taps {
    int n, n_max; /* output pixels; largest number of weights of one */
    struct tap_span {
        int first, n;
    } * spans;        /* [n] */
    int32_t *weights; /* [n, n_max] */
};

static void taps_fini(struct taps *taps)
{
    free(taps->spans);
    free(taps->weights);
    *taps = (struct taps){0};
}

/* One axis: n_in pixels become n_out, of which n from `first` on are wanted. */
struct axis {
    int n_in, n_out, first, n;
};

/* The order of operations is Pillow's: another one may round another way. scratch: [n_max] */
static void compute_taps(struct taps *taps, int i, const struct axis *axis,
                         const struct filter *filter, double *scratch)
{
    double scale = (double)axis->n_in / axis->n_out;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = filter->support * filter_scale;
    double center = (axis->first + i + 0.5) * scale;
    double inverse = 1.0 / filter_scale;
    int first = (int)(center - support + 0.5);
    if (first < 0)
        first = 0;
    int end = (int)(center + support + 0.5);
    if (end > axis->n_in)
        end = axis->n_in;
    int n = end - first;
    double sum = 0.0;
    for (int k = 0; k < n; k++) {
        scratch[k] = filter->weight((k + first - center + 0.5) * inverse);
        sum += scratch[k];
    }
    int32_t *weights = taps->weights + (size_t)i * (size_t)taps->n_max;
    for (int k = 0; k < n; k++) {
        double weight = sum != 0.0 ? scratch[k] / sum : scratch[k];
        double fixed = weight * (1 << PRECISION_BITS);
        weights[k] = (int32_t)(weight < 0 ? -0.5 + fixed : 0.5 + fixed);
    }
    taps->spans[i] = (struct tap_span){.first = first, .n = n};
}

static enum status taps_init(struct taps *taps, const struct axis *axis,
                             const struct filter *filter, struct error *err)
{
    double scale = (double)axis->n_in / axis->n_out;
    double support = filter->support * (scale < 1.0 ? 1.0 : scale);
    *taps = (struct taps){.n = axis->n, .n_max = (int)ceil(support) * 2 + 1};
    taps->spans = calloc((size_t)taps->n, sizeof(*taps->spans));
    taps->weights = calloc((size_t)taps->n * (size_t)taps->n_max, sizeof(*taps->weights));
    double *scratch = calloc((size_t)taps->n_max, sizeof(*scratch));
    if (!taps->spans || !taps->weights || !scratch) {
        free(scratch);
        taps_fini(taps);
        return error_set(err, STATUS_NOMEM, "cannot allocate the weights of a resize from %d to %d",
                         axis->n_in, axis->n_out);
    }
    for (int i = 0; i < taps->n; i++)
        compute_taps(taps, i, axis, filter, scratch);
    free(scratch);
    return STATUS_OK;
}

static uint8_t clip(int32_t sum)
{
    int32_t value = sum >> PRECISION_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* out[x] = sum over k of weights[k] * in[k * stride + x], for n samples side by side. */
static void weigh(uint8_t *out, const uint8_t *in, size_t n, size_t stride, const int32_t *weights,
                  int n_weights)
{
    for (size_t x = 0; x < n; x++) {
        int32_t sum = 1 << (PRECISION_BITS - 1);
        for (int k = 0; k < n_weights; k++)
            sum += in[(size_t)k * stride + x] * weights[k];
        out[x] = clip(sum);
    }
}

/* Rows first_row .. first_row + n_rows - 1 of `in`, each resized along its length. */
static enum status pass_horizontal(struct picture **out, const struct picture *in,
                                   const struct axis *axis, int first_row, int n_rows,
                                   const struct filter *filter, struct error *err)
{
    struct taps taps;
    enum status st = taps_init(&taps, axis, filter, err);
    if (st != STATUS_OK)
        return st;
    st = picture_create(out, axis->n, n_rows, in->channels, err);
    size_t channels = (size_t)in->channels;
    for (int y = 0; y < n_rows && st == STATUS_OK; y++) {
        const uint8_t *from = in->pixels + (size_t)(first_row + y) * picture_row_bytes(in);
        uint8_t *to = (*out)->pixels + (size_t)y * picture_row_bytes(*out);
        for (int x = 0; x < axis->n; x++)
            weigh(to + (size_t)x * channels, from + (size_t)taps.spans[x].first * channels,
                  channels, channels, taps.weights + (size_t)x * (size_t)taps.n_max,
                  taps.spans[x].n);
    }
    taps_fini(&taps);
    return st;
}

/* in holds rows of the whole from first_row on; taps are those of the whole. */
static enum status pass_vertical(struct picture **out, const struct picture *in, int first_row,
                                 const struct taps *taps, struct error *err)
{
    enum status st = picture_create(out, in->width, taps->n, in->channels, err);
    size_t row = picture_row_bytes(in);
    for (int y = 0; y < taps->n && st == STATUS_OK; y++) {
        struct tap_span span = taps->spans[y];
        weigh((*out)->pixels + (size_t)y * row, in->pixels + (size_t)(span.first - first_row) * row,
              row, row, taps->weights + (size_t)y * (size_t)taps->n_max, span.n);
    }
    return st;
}

/* Columns left .. left + width - 1 of rows top .. top + height - 1. */
static enum status copy_part(struct picture **out, const struct picture *in, int left, int top,
                             int width, int height, struct error *err)
{
    enum status st = picture_create(out, width, height, in->channels, err);
    for (int y = 0; y < height && st == STATUS_OK; y++)
        memcpy((*out)->pixels + (size_t)y * picture_row_bytes(*out),
               in->pixels + (size_t)(top + y) * picture_row_bytes(in) +
                   (size_t)left * (size_t)in->channels,
               picture_row_bytes(*out));
    return st;
}

/* A pass along an axis whose length does not change is left out: it would change nothing. */
static enum status resize_channels(struct picture **out, const struct picture *in,
                                   const struct resize_target *t, const struct filter *filter,
                                   struct error *err)
{
    struct axis x = {in->width, t->width, t->left, t->part_width};
    struct axis y = {in->height, t->height, t->top, t->part_height};
    struct taps rows = {0};
    int first_row = t->top;
    int n_rows = t->part_height;
    enum status st = STATUS_OK;
    if (y.n_in != y.n_out) {
        st = taps_init(&rows, &y, filter, err);
        if (st != STATUS_OK)
            return st;
        struct tap_span last = rows.spans[rows.n - 1];
        first_row = rows.spans[0].first;
        n_rows = last.first + last.n - first_row;
    }
    struct picture *narrow = NULL;
    if (x.n_in != x.n_out)
        st = pass_horizontal(&narrow, in, &x, first_row, n_rows, filter, err);
    else
        st = copy_part(&narrow, in, t->left, first_row, t->part_width, n_rows, err);
    if (st == STATUS_OK && rows.spans) {
        st = pass_vertical(out, narrow, first_row, &rows, err);
    } else if (st == STATUS_OK) {
        *out = narrow;
        narrow = NULL;
    }
    picture_destroy(narrow);
    taps_fini(&rows);
    return st;
}

/* a * b / 255, rounded, without a division. */
static uint8_t multiply_255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

static void multiply_by_alpha(struct picture *p)
{
    int colors = p->channels - 1;
    size_t n = (size_t)p->width * (size_t)p->height;
    for (uint8_t *pixel = p->pixels; n > 0; n--, pixel += p->channels)
        for (int c = 0; c < colors; c++)
            pixel[c] = multiply_255(pixel[c], pixel[colors]);
}

static void divide_by_alpha(struct picture *p)
{
    int colors = p->channels - 1;
    size_t n = (size_t)p->width * (size_t)p->height;
    for (uint8_t *pixel = p->pixels; n > 0; n--, pixel += p->channels) {
        int alpha = pixel[colors];
        if (alpha == 0 || alpha == 255)
            continue;
        for (int c = 0; c < colors; c++) {
            int value = 255 * (int)pixel[c] / alpha;
            pixel[c] = (uint8_t)(value > 255 ? 255 : value);
        }
    }
}

static enum status resize_with_alpha(struct picture **out, const struct picture *in,
                                     const struct resize_target *target,
                                     const struct filter *filter, struct error *err)
{
    struct picture *multiplied;
    enum status st = copy_part(&multiplied, in, 0, 0, in->width, in->height, err);
    if (st != STATUS_OK)
        return st;
    multiply_by_alpha(multiplied);
    st = resize_channels(out, multiplied, target, filter, err);
    picture_destroy(multiplied);
    if (st == STATUS_OK)
        divide_by_alpha(*out);
    return st;
}

static bool is_inside(int first, int n, int n_whole)
{
    return n >= 1 && first >= 0 && first <= n_whole - n;
}

enum status resize_part(struct picture **out, const struct picture *in,
                        const struct resize_target *t, enum resize_filter filter, struct error *err)
{
    *out = NULL;
    if (!is_inside(t->left, t->part_width, t->width) ||
        !is_inside(t->top, t->part_height, t->height))
        return error_set(err, STATUS_INVALID, "a part of %dx%d at %d,%d is not inside %dx%d",
                         t->part_width, t->part_height, t->left, t->top, t->width, t->height);
    if (t->width == in->width && t->height == in->height)
        return copy_part(out, in, t->left, t->top, t->part_width, t->part_height, err);
    if (in->channels == 2 || in->channels == 4)
        return resize_with_alpha(out, in, t, &filters[filter], err);
    return resize_channels(out, in, t, &filters[filter], err);
}

enum status resize(struct picture **out, const struct picture *in, int width, int height,
                   enum resize_filter filter, struct error *err)
{
    struct resize_target all = {
        .width = width, .height = height, .part_width = width, .part_height = height};
    return resize_part(out, in, &all, filter, err);
}
