/*
 * sizes.c - walks the sizes of a target and chooses among them.
 */
#include "model/sizes.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { SIDE_TEXT_MAX = 65536 };

static bool listed(int64_t w, int64_t h)
{
    int64_t longer = w > h ? w : h;
    int64_t shorter = w > h ? h : w;
    return longer <= SIZES_RATIO_MAX * shorter;
}

/*
 * The reference's walk in steps of 32 pixels: from one row of n_cells, taller by one where the area
 * allows it, else narrower by one. Writes what has a fitting shape into list (NULL: only counts)
 * and returns the number.
 */
static int walk(struct picture_size *list, int64_t n_cells)
{
    int n = 0;
    int64_t w = n_cells;
    int64_t h = 1;
    while (w > 0) {
        if (listed(w, h)) {
            if (list)
                list[n] = (struct picture_size){.width = (int)w * SIZES_STEP_PIXELS,
                                                .height = (int)h * SIZES_STEP_PIXELS};
            n++;
        }
        if ((h + 1) * w <= n_cells)
            h++;
        else
            w--;
    }
    return n;
}

enum status sizes_init(struct sizes *sizes, int target, struct error *err)
{
    *sizes = (struct sizes){0};
    if (target < SIZES_STEP_PIXELS || target > SIZES_TARGET_MAX || target % SIZES_STEP_PIXELS != 0)
        return error_set(err, STATUS_INVALID,
                         "target size %d: expected a multiple of %d from %d to %d", target,
                         SIZES_STEP_PIXELS, SIZES_STEP_PIXELS, SIZES_TARGET_MAX);
    int64_t side = target / SIZES_STEP_PIXELS;
    int n = walk(NULL, side * side);
    sizes->list = calloc((size_t)n, sizeof(*sizes->list));
    if (!sizes->list)
        return error_set(err, STATUS_NOMEM, "cannot allocate a list of %d sizes", n);
    sizes->n = walk(sizes->list, side * side);
    return STATUS_OK;
}

void sizes_fini(struct sizes *sizes)
{
    free(sizes->list);
    *sizes = (struct sizes){0};
}

/* In double, in the reference's order of operations: equal quotients must stay equal. */
static double likeness(struct picture_size size, int width, int height)
{
    double x = (double)size.width / width;
    double y = (double)size.height / height;
    return x < y ? x / y : y / x;
}

struct picture_size sizes_choose(const struct sizes *sizes, int width, int height)
{
    struct picture_size best = sizes->list[0];
    double best_likeness = likeness(best, width, height);
    for (int i = 1; i < sizes->n; i++) {
        struct picture_size size = sizes->list[i];
        double l = likeness(size, width, height);
        bool larger =
            size.width > best.width || (size.width == best.width && size.height > best.height);
        if (l > best_likeness || (l == best_likeness && larger)) {
            best = size;
            best_likeness = l;
        }
    }
    return best;
}

/* One to five digits, no sign. Returns -1 for anything else. */
static int parse_side(const char **text)
{
    int value = 0;
    int n_digits = 0;
    while (**text >= '0' && **text <= '9' && n_digits < 6) {
        value = value * 10 + (**text - '0');
        n_digits++;
        (*text)++;
    }
    return n_digits ? value : -1;
}

enum status sizes_parse(struct picture_size *size, const char *text, struct error *err)
{
    const char *at = text;
    int width = parse_side(&at);
    int height = -1;
    if (width >= 0 && *at == 'x') {
        at++;
        height = parse_side(&at);
    }
    if (height < 0 || *at)
        return error_set(err, STATUS_INVALID,
                         "size '%.40s': expected WIDTHxHEIGHT, such as 512x768", text);
    int sides[2] = {width, height};
    for (int i = 0; i < 2; i++)
        if (sides[i] < SIZES_STEP_PIXELS || sides[i] > SIDE_TEXT_MAX ||
            sides[i] % SIZES_STEP_PIXELS != 0)
            return error_set(err, STATUS_INVALID,
                             "size '%.40s': a side is %d, expected a multiple of %d from %d to %d",
                             text, sides[i], SIZES_STEP_PIXELS, SIZES_STEP_PIXELS, SIDE_TEXT_MAX);
    *size = (struct picture_size){.width = width, .height = height};
    return STATUS_OK;
}
