/*
 * exif.h - the orientation in a picture's EXIF data, and turning pixels upright by it.
 */
#ifndef MGPT_MODEL_EXIF_H
#define MGPT_MODEL_EXIF_H

#include "model/picture.h"

/*
 * exif: the TIFF structure, with or without "Exif\0\0" in front (EXIF 2.32, 4.6). Returns 1 to 8;
 * 1, upright, for data that is damaged or says nothing: EXIF is an ornament, and a picture is not
 * refused for it.
 */
int exif_orientation(const uint8_t *exif, size_t n_bytes);

/* Turns and mirrors *picture as the orientation asks; a new one takes its place when something
 * changes. */
enum status exif_turn_upright(struct picture **picture, int orientation, struct error *err);

#endif
