/*
 * picture_codec.h - what picture_file.c and the files of the three formats share.
 */
#ifndef MGPT_MODEL_PICTURE_CODEC_H
#define MGPT_MODEL_PICTURE_CODEC_H

#include "model/picture_file.h"

enum { PICTURE_MESSAGE_BYTES = 256 }; /* of the libraries' own error texts */

/* Against the limits, before anything is allocated for pixels. */
enum status picture_check_size(const struct picture_limits *limits, int64_t width, int64_t height,
                               struct error *err);

/*
 * The readers give pixels as they lie in the file and the EXIF orientation, 1 when there is none.
 * On error *out is NULL.
 */
typedef enum status (*picture_reader)(struct picture **out, int *orientation, const uint8_t *bytes,
                                      size_t n_bytes, const struct picture_limits *limits,
                                      struct error *err);

enum status picture_png_read(struct picture **out, int *orientation, const uint8_t *bytes,
                             size_t n_bytes, const struct picture_limits *limits,
                             struct error *err);
enum status picture_jpeg_read(struct picture **out, int *orientation, const uint8_t *bytes,
                              size_t n_bytes, const struct picture_limits *limits,
                              struct error *err);
enum status picture_webp_read(struct picture **out, int *orientation, const uint8_t *bytes,
                              size_t n_bytes, const struct picture_limits *limits,
                              struct error *err);

enum status picture_png_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                              const struct picture_write_options *options, struct error *err);
/* picture has 1 or 3 channels. */
enum status picture_jpeg_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                               int quality, struct error *err);
/* picture has 3 or 4 channels. */
enum status picture_webp_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                               int quality, struct error *err);

#endif
