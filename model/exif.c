/*
 * exif.c - finds one tag in a TIFF directory; moves pixels.
 */
#include "model/exif.h"

#include <stdbool.h>
#include <string.h>

enum {
    TIFF_HEADER_BYTES = 8,
    ENTRY_BYTES = 12,
    TAG_ORIENTATION = 0x0112,
    TYPE_SHORT = 3,
    UPRIGHT = 1,
    ORIENTATION_MAX = 8
};

struct reader {
    const uint8_t *bytes;
    size_t n_bytes;
    bool big_endian;
};

/* 0 for what lies outside: no value that matters here is 0. */
static uint32_t read_16(const struct reader *r, size_t at)
{
    if (at > r->n_bytes || r->n_bytes - at < 2)
        return 0;
    const uint8_t *b = r->bytes + at;
    return r->big_endian ? (uint32_t)b[0] << 8 | b[1] : (uint32_t)b[1] << 8 | b[0];
}

static uint32_t read_32(const struct reader *r, size_t at)
{
    uint32_t first = read_16(r, at);
    uint32_t second = read_16(r, at + 2);
    return r->big_endian ? first << 16 | second : second << 16 | first;
}

int exif_orientation(const uint8_t *exif, size_t n_bytes)
{
    if (n_bytes >= 6 && memcmp(exif, "Exif\0\0", 6) == 0) {
        exif += 6;
        n_bytes -= 6;
    }
    if (n_bytes < TIFF_HEADER_BYTES)
        return UPRIGHT;
    bool big_endian = memcmp(exif, "MM\0*", 4) == 0;
    if (!big_endian && memcmp(exif, "II*\0", 4) != 0)
        return UPRIGHT;
    struct reader r = {.bytes = exif, .n_bytes = n_bytes, .big_endian = big_endian};
    size_t directory = read_32(&r, 4);
    uint32_t n_entries = read_16(&r, directory);
    for (uint32_t i = 0; i < n_entries; i++) {
        size_t entry = directory + 2 + (size_t)i * ENTRY_BYTES;
        if (read_16(&r, entry) != TAG_ORIENTATION)
            continue;
        uint32_t value = read_16(&r, entry + 8);
        bool sound = read_16(&r, entry + 2) == TYPE_SHORT && value >= 1 && value <= ORIENTATION_MAX;
        return sound ? (int)value : UPRIGHT;
    }
    return UPRIGHT;
}

/* How the eight orientations are stored: the upright picture, its axes swapped first, then
 * mirrored. */
struct turn {
    bool swap, mirror_x, mirror_y; /* mirrors are those of the stored picture */
};

static const struct turn turns[ORIENTATION_MAX + 1] = {
    [1] = {0, 0, 0}, [2] = {0, 1, 0}, [3] = {0, 1, 1}, [4] = {0, 0, 1},
    [5] = {1, 0, 0}, [6] = {1, 0, 1}, [7] = {1, 1, 1}, [8] = {1, 1, 0},
};

enum status exif_turn_upright(struct picture **picture, int orientation, struct error *err)
{
    if (orientation <= UPRIGHT || orientation > ORIENTATION_MAX)
        return STATUS_OK;
    const struct picture *in = *picture;
    struct turn turn = turns[orientation];
    struct picture *out;
    enum status st = picture_create(&out, turn.swap ? in->height : in->width,
                                    turn.swap ? in->width : in->height, in->channels, err);
    if (st != STATUS_OK)
        return st;
    size_t channels = (size_t)in->channels;
    uint8_t *to = out->pixels;
    for (int y = 0; y < out->height; y++)
        for (int x = 0; x < out->width; x++, to += channels) {
            int from_x = turn.swap ? y : x;
            int from_y = turn.swap ? x : y;
            if (turn.mirror_x)
                from_x = in->width - 1 - from_x;
            if (turn.mirror_y)
                from_y = in->height - 1 - from_y;
            const uint8_t *from =
                in->pixels + ((size_t)from_y * (size_t)in->width + (size_t)from_x) * channels;
            memcpy(to, from, channels);
        }
    picture_destroy(*picture);
    *picture = out;
    return STATUS_OK;
}
