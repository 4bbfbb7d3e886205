/*
 * picture_jpeg.c - JPEG by libjpeg-turbo.
 *
 * libjpeg leaves by longjmp on errors: what must be freed then lies in a struct that outlives the
 * jump.
 */
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "model/exif.h"
#include "model/picture_codec.h"

enum {
    SCANS_MAX =
        64, /* a progressive file of sense has about ten; each costs a pass over all pixels */
    MEMORY_BYTES_MAX = 1 << 30, /* coefficients of progressive files */
    MARKER_BYTES_MAX = 65533
};

struct jpeg_work {
    struct jpeg_error_mgr errors; /* libjpeg knows this address */
    jmp_buf jump;
    struct jpeg_progress_mgr progress;
    char message[PICTURE_MESSAGE_BYTES];
    struct picture *picture;
    uint8_t *row;
    unsigned char *out; /* malloc'ed by libjpeg */
    unsigned long n_out;
};

static void on_error(j_common_ptr jpeg)
{
    struct jpeg_work *work = jpeg->client_data;
    char message[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, message);
    snprintf(work->message, sizeof(work->message), "%.*s", PICTURE_MESSAGE_BYTES - 1, message);
    longjmp(work->jump, 1);
}

/* Warnings that mean pixels are made up are errors here; the others are let pass. */
static void on_message(j_common_ptr jpeg, int level)
{
    if (level >= 0)
        return;
    switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_MUST_RESYNC:
        on_error(jpeg);
    }
}

static void on_progress(j_common_ptr jpeg)
{
    struct jpeg_work *work = jpeg->client_data;
    j_decompress_ptr decoder = (j_decompress_ptr)jpeg;
    if (decoder->input_scan_number <= SCANS_MAX)
        return;
    snprintf(work->message, sizeof(work->message), "more than %d scans", SCANS_MAX);
    longjmp(work->jump, 1);
}

static void set_up_errors(struct jpeg_work *work, j_common_ptr jpeg)
{
    jpeg->err = jpeg_std_error(&work->errors);
    jpeg->client_data = work;
    work->errors.error_exit = on_error;
    work->errors.emit_message = on_message;
}

/* CMYK as Adobe stores it, inverted: each ink that is left over, times what black leaves. Rounding
 * as in Pillow. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, size_t n)
{
    for (; n > 0; n--, rgb += 3, cmyk += 4)
        for (int c = 0; c < 3; c++) {
            unsigned t = (255u - cmyk[c]) * cmyk[3] + 128;
            rgb[c] = (uint8_t)(cmyk[3] - (((t >> 8) + t) >> 8));
        }
}

static enum status prepare(struct jpeg_work *work, j_decompress_ptr jpeg,
                           const struct picture_limits *limits, struct error *err)
{
    enum status st = picture_check_size(limits, jpeg->image_width, jpeg->image_height, err);
    if (st != STATUS_OK)
        return st;
    bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    bool grey = jpeg->jpeg_color_space == JCS_GRAYSCALE;
    jpeg->out_color_space = cmyk ? JCS_CMYK : grey ? JCS_GRAYSCALE : JCS_RGB;
    st = picture_create(&work->picture, (int)jpeg->image_width, (int)jpeg->image_height,
                        grey ? 1 : 3, err);
    if (st != STATUS_OK || !cmyk)
        return st;
    work->row = malloc((size_t)jpeg->image_width * 4);
    return work->row ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot allocate a row");
}

static int find_orientation(j_decompress_ptr jpeg)
{
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length >= 6 &&
            memcmp(m->data, "Exif\0\0", 6) == 0)
            return exif_orientation(m->data, m->data_length);
    return 1;
}

static enum status read_all(struct jpeg_work *work, j_decompress_ptr jpeg, const uint8_t *bytes,
                            size_t n_bytes, const struct picture_limits *limits, int *orientation,
                            struct error *err)
{
    if (setjmp(work->jump))
        return error_set(err, STATUS_INVALID, "JPEG: %s", work->message);
    jpeg_create_decompress(jpeg);
    jpeg->client_data = work; /* creation clears it */
    jpeg->mem->max_memory_to_use = MEMORY_BYTES_MAX;
    work->progress.progress_monitor = on_progress;
    jpeg->progress = &work->progress;
    jpeg_mem_src(jpeg, bytes, (unsigned long)n_bytes);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, MARKER_BYTES_MAX);
    jpeg_read_header(jpeg, TRUE);
    enum status st = prepare(work, jpeg, limits, err);
    if (st != STATUS_OK)
        return st;
    jpeg_start_decompress(jpeg);
    size_t row_bytes = picture_row_bytes(work->picture);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = work->picture->pixels + jpeg->output_scanline * row_bytes;
        JSAMPROW row = work->row ? work->row : to;
        jpeg_read_scanlines(jpeg, &row, 1);
        if (work->row)
            cmyk_to_rgb(to, work->row, jpeg->image_width);
    }
    *orientation = find_orientation(jpeg);
    jpeg_finish_decompress(jpeg);
    return STATUS_OK;
}

enum status picture_jpeg_read(struct picture **out, int *orientation, const uint8_t *bytes,
                              size_t n_bytes, const struct picture_limits *limits,
                              struct error *err)
{
    *out = NULL;
    *orientation = 1;
    struct jpeg_work work = {0};
    struct jpeg_decompress_struct jpeg = {0};
    set_up_errors(&work, (j_common_ptr)&jpeg);
    enum status st = read_all(&work, &jpeg, bytes, n_bytes, limits, orientation, err);
    jpeg_destroy_decompress(&jpeg);
    free(work.row);
    if (st != STATUS_OK)
        picture_destroy(work.picture);
    else
        *out = work.picture;
    return st;
}

static enum status write_all(struct jpeg_work *work, j_compress_ptr jpeg,
                             const struct picture *picture, int quality, struct error *err)
{
    if (setjmp(work->jump))
        return error_set(err, STATUS_INVALID, "cannot write a JPEG: %s", work->message);
    jpeg_create_compress(jpeg);
    jpeg->client_data = work;
    jpeg_mem_dest(jpeg, &work->out, &work->n_out);
    jpeg->image_width = (JDIMENSION)picture->width;
    jpeg->image_height = (JDIMENSION)picture->height;
    jpeg->input_components = picture->channels;
    jpeg->in_color_space = picture->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(jpeg);
    jpeg_set_quality(jpeg, quality, TRUE);
    jpeg->optimize_coding = TRUE;
    jpeg_start_compress(jpeg, TRUE);
    while (jpeg->next_scanline < jpeg->image_height) {
        JSAMPROW row = picture->pixels + jpeg->next_scanline * picture_row_bytes(picture);
        jpeg_write_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_compress(jpeg);
    return STATUS_OK;
}

enum status picture_jpeg_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                               int quality, struct error *err)
{
    *bytes = NULL;
    struct jpeg_work work = {0};
    struct jpeg_compress_struct jpeg = {0};
    set_up_errors(&work, (j_common_ptr)&jpeg);
    enum status st = write_all(&work, &jpeg, picture, quality, err);
    jpeg_destroy_compress(&jpeg);
    if (st != STATUS_OK) {
        free(work.out);
        return st;
    }
    *bytes = work.out;
    *n_bytes = work.n_out;
    return STATUS_OK;
}
