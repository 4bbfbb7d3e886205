/*
 * picture_file.h - PNG, JPEG and WebP to pixels and back.
 *
 * In:      files or bytes of strangers; the format is told by their first bytes, never by a name.
 * Out:     8-bit grey, grey and alpha, RGB or RGBA, upright (EXIF orientation is applied): palettes
 *          and transparent colours expanded, 16 bit reduced, CMYK converted, of an animation the
 *          first frame.
 * Limits:  checked against the header before pixels are allocated.
 */
#ifndef MGPT_MODEL_PICTURE_FILE_H
#define MGPT_MODEL_PICTURE_FILE_H

#include "model/picture.h"

enum picture_format { PICTURE_PNG, PICTURE_JPEG, PICTURE_WEBP };

struct picture_limits {
    int side_max;       /* pixels */
    int64_t pixels_max; /* width * height */
    size_t bytes_max;   /* of the file */
};

#define PICTURE_LIMITS_DEFAULT                                                                     \
    ((struct picture_limits){.side_max = 32768, .pixels_max = 100000000, .bytes_max = 128 << 20})

/* STATUS_INVALID: no picture, damaged, or over a limit (NULL: the default ones).
 * STATUS_UNSUPPORTED: another format. */
enum status picture_read(struct picture **out, const void *bytes, size_t n_bytes,
                         const struct picture_limits *limits, struct error *err);
enum status picture_read_file(struct picture **out, const char *path,
                              const struct picture_limits *limits, struct error *err);

struct picture_text {
    const char *key;   /* 1-79 ASCII characters, such as "parameters" */
    const char *value; /* UTF-8 */
};

struct picture_write_options {
    enum picture_format format;
    int quality; /* JPEG and WebP: 1-100; 0 stands for 90; WebP is lossless at 101 */
    const struct picture_text *texts; /* [n_texts] PNG only; borrowed */
    int n_texts;
};

/* The caller frees *bytes. JPEG has no alpha: it is laid over white. */
enum status picture_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                          const struct picture_write_options *options, struct error *err);

/* Writes a new file beside `path` and renames it, so that nobody sees half a picture. */
enum status picture_write_file(const char *path, const struct picture *picture,
                               const struct picture_write_options *options, struct error *err);

/* "png", "jpeg", "jpg", "webp", also as the end of a file name (".PNG"). -1 for others. */
int picture_parse_format(const char *name);

#endif
