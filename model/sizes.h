/*
 * sizes.h - the picture sizes a checkpoint was trained for: about target x target pixels.
 *
 * In:      the target size of the checkpoint (512, 768, 1024, ...).
 * Out:     a list of sizes in steps of 32, and the one of them that suits a picture.
 */
#ifndef MGPT_MODEL_SIZES_H
#define MGPT_MODEL_SIZES_H

#include "base/error.h"

enum {
    SIZES_STEP_PIXELS = 32,
    SIZES_RATIO_MAX = 4,     /* of the longer side to the shorter */
    SIZES_TARGET_MAX = 8192, /* pixels */
    SIZES_TARGET_DEFAULT = 768
};

struct picture_size {
    int width, height; /* pixels */
};

struct sizes {
    int n;
    struct picture_size *list; /* [n] in the reference's order: from the widest to the tallest */
};

/*
 * STATUS_INVALID: target is no multiple of 32 in [32, SIZES_TARGET_MAX]. End it with sizes_fini().
 */
enum status sizes_init(struct sizes *sizes, int target, struct error *err);
void sizes_fini(struct sizes *sizes);

/*
 * The listed size whose shape is nearest to width x height; among equals the wider, then the
 * taller.
 */
struct picture_size sizes_choose(const struct sizes *sizes, int width, int height);

/*
 * Parses "WIDTHxHEIGHT", as in --size and the API. STATUS_INVALID: another form, a side of 0, not a
 * multiple of 32, or over 65536.
 */
enum status sizes_parse(struct picture_size *size, const char *text, struct error *err);

#endif
