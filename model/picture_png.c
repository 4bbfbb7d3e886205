/*
 * picture_png.c - PNG by libpng.
 *
 * libpng leaves by longjmp on errors: what must be freed then lies in a struct that outlives the
 * jump.
 */
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/exif.h"
#include "model/picture_codec.h"
#include "model/text_buffer.h"

enum {
    SIGNATURE_BYTES = 8,
    CHUNK_FRAME_BYTES = 12, /* length, name, checksum */
    CHUNK_BYTES_MAX = 8 << 20,
    CHUNKS_KEPT_MAX = 128,
    KEY_BYTES_MAX = 79
};

struct png_work {
    png_structp png;
    png_infop info;
    const uint8_t *bytes; /* what is still to be read */
    size_t n_bytes;
    struct text_buffer out; /* what was written */
    png_bytep *rows;
    struct picture *picture;
    char message[PICTURE_MESSAGE_BYTES];
};

static void on_error(png_structp png, png_const_charp message)
{
    struct png_work *work = png_get_error_ptr(png);
    snprintf(work->message, sizeof(work->message), "%s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static void read_bytes(png_structp png, png_bytep to, size_t n)
{
    struct png_work *work = png_get_io_ptr(png);
    if (n > work->n_bytes)
        png_error(png, "the file ends too early");
    memcpy(to, work->bytes, n);
    work->bytes += n;
    work->n_bytes -= n;
}

/*
 * Chunks that change no pixel here are passed over unread: a few KB of a packed text or colour
 * profile can stand for megabytes.
 */
static void ignore_chunks(struct png_work *work)
{
    static const png_byte unused[] = "bKGD\0cHRM\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0"
                                     "sCAL\0sPLT\0sRGB\0tEXt\0tIME\0zTXt";
    png_set_keep_unknown_chunks(work->png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_set_keep_unknown_chunks(work->png, PNG_HANDLE_CHUNK_NEVER, unused, sizeof(unused) / 5);
}

/* Everything libpng can hold is made 8-bit grey, grey and alpha, RGB or RGBA. */
static void ask_for_8_bit(struct png_work *work)
{
    png_set_expand(work->png); /* palettes, fewer than 8 bits, transparent colours */
    png_set_scale_16(work->png);
    png_set_interlace_handling(work->png);
    png_read_update_info(work->png, work->info);
}

static enum status prepare_rows(struct png_work *work, const struct picture_limits *limits,
                                struct error *err)
{
    png_uint_32 width = png_get_image_width(work->png, work->info);
    png_uint_32 height = png_get_image_height(work->png, work->info);
    enum status st = picture_check_size(limits, width, height, err);
    if (st != STATUS_OK)
        return st;
    ask_for_8_bit(work);
    st = picture_create(&work->picture, (int)width, (int)height,
                        png_get_channels(work->png, work->info), err);
    if (st != STATUS_OK)
        return st;
    size_t row_bytes = picture_row_bytes(work->picture);
    if (png_get_rowbytes(work->png, work->info) != row_bytes)
        return error_set(err, STATUS_INTERNAL, "libpng has rows of %zu bytes, expected %zu",
                         (size_t)png_get_rowbytes(work->png, work->info), row_bytes);
    work->rows = calloc(height, sizeof(*work->rows));
    if (!work->rows)
        return error_set(err, STATUS_NOMEM, "cannot allocate %u rows", height);
    for (png_uint_32 y = 0; y < height; y++)
        work->rows[y] = work->picture->pixels + y * row_bytes;
    return STATUS_OK;
}

static int find_orientation(struct png_work *work)
{
#ifdef PNG_eXIf_SUPPORTED
    png_bytep exif = NULL;
    png_uint_32 n = 0;
    if (png_get_eXIf_1(work->png, work->info, &n, &exif) && exif)
        return exif_orientation(exif, n);
#endif
    (void)work;
    return 1;
}

static uint32_t read_32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/*
 * Every chunk up to the end's must lie in the file: libpng allocates what a chunk says it has
 * before it reads it.
 */
static enum status check_chunks(const uint8_t *bytes, size_t n_bytes, struct error *err)
{
    size_t at = SIGNATURE_BYTES;
    while (at + CHUNK_FRAME_BYTES <= n_bytes) {
        size_t length = read_32(bytes + at);
        size_t left = n_bytes - at - CHUNK_FRAME_BYTES;
        if (length > left)
            return error_set(
                err, STATUS_INVALID,
                "PNG: the chunk at byte %zu has %zu bytes, but the file ends after %zu", at, length,
                left);
        if (memcmp(bytes + at + 4, "IEND", 4) == 0)
            return STATUS_OK;
        at += CHUNK_FRAME_BYTES + length;
    }
    return error_set(err, STATUS_INVALID, "PNG: the file ends too early, without IEND");
}

static enum status read_all(struct png_work *work, const struct picture_limits *limits,
                            int *orientation, struct error *err)
{
    if (setjmp(png_jmpbuf(work->png)))
        return error_set(err, STATUS_INVALID, "PNG: %s", work->message);
    png_set_user_limits(work->png, PICTURE_SIDE_MAX, PICTURE_SIDE_MAX);
    png_set_chunk_malloc_max(work->png, CHUNK_BYTES_MAX);
    png_set_chunk_cache_max(work->png, CHUNKS_KEPT_MAX);
    ignore_chunks(work);
    png_set_read_fn(work->png, work, read_bytes);
    png_read_info(work->png, work->info);
    enum status st = prepare_rows(work, limits, err);
    if (st != STATUS_OK)
        return st;
    png_read_image(work->png, work->rows);
    png_read_end(work->png, work->info); /* eXIf may come behind the pixels */
    *orientation = find_orientation(work);
    return STATUS_OK;
}

enum status picture_png_read(struct picture **out, int *orientation, const uint8_t *bytes,
                             size_t n_bytes, const struct picture_limits *limits, struct error *err)
{
    *out = NULL;
    *orientation = 1;
    enum status st = check_chunks(bytes, n_bytes, err);
    if (st != STATUS_OK)
        return st;
    struct png_work work = {.bytes = bytes, .n_bytes = n_bytes};
    work.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &work, on_error, on_warning);
    work.info = work.png ? png_create_info_struct(work.png) : NULL;
    st = work.info ? read_all(&work, limits, orientation, err)
                   : error_set(err, STATUS_NOMEM, "cannot start libpng");
    png_destroy_read_struct(&work.png, &work.info, NULL);
    free(work.rows);
    if (st != STATUS_OK)
        picture_destroy(work.picture);
    else
        *out = work.picture;
    return st;
}

static void write_bytes(png_structp png, png_bytep from, size_t n)
{
    struct png_work *work = png_get_io_ptr(png);
    if (text_buffer_append(&work->out, from, n, NULL) != STATUS_OK)
        png_error(png, "out of memory");
}

static void flush_bytes(png_structp png)
{
    (void)png;
}

static bool is_ascii(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text >= 0x80)
            return false;
    return true;
}

/* ASCII goes into tEXt, which every reader knows; other UTF-8 into iTXt. */
static void set_texts(struct png_work *work, const struct picture_write_options *options)
{
    for (int i = 0; i < options->n_texts; i++) {
        const struct picture_text *text = &options->texts[i];
        png_text chunk = {.key = (char *)text->key, .text = (char *)text->value};
        chunk.compression =
            is_ascii(text->value) ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
        png_set_text(work->png, work->info, &chunk, 1);
    }
}

static enum status write_all(struct png_work *work, const struct picture *picture,
                             const struct picture_write_options *options, struct error *err)
{
    static const int types[] = {[1] = PNG_COLOR_TYPE_GRAY,
                                [2] = PNG_COLOR_TYPE_GRAY_ALPHA,
                                [3] = PNG_COLOR_TYPE_RGB,
                                [4] = PNG_COLOR_TYPE_RGB_ALPHA};
    if (setjmp(png_jmpbuf(work->png)))
        return error_set(err, STATUS_NOMEM, "cannot write a PNG: %s", work->message);
    png_set_write_fn(work->png, work, write_bytes, flush_bytes);
    png_set_IHDR(work->png, work->info, (png_uint_32)picture->width, (png_uint_32)picture->height,
                 8, types[picture->channels], PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    set_texts(work, options);
    png_write_info(work->png, work->info);
    for (int y = 0; y < picture->height; y++)
        png_write_row(work->png, picture->pixels + (size_t)y * picture_row_bytes(picture));
    png_write_end(work->png, NULL);
    return STATUS_OK;
}

static enum status check_texts(const struct picture_write_options *options, struct error *err)
{
    for (int i = 0; i < options->n_texts; i++) {
        size_t n = strlen(options->texts[i].key);
        if (n < 1 || n > KEY_BYTES_MAX || !is_ascii(options->texts[i].key))
            return error_set(err, STATUS_INVALID,
                             "the key '%.90s' of a PNG text, expected 1 to %d ASCII characters",
                             options->texts[i].key, KEY_BYTES_MAX);
    }
    return STATUS_OK;
}

enum status picture_png_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                              const struct picture_write_options *options, struct error *err)
{
    *bytes = NULL;
    enum status st = check_texts(options, err);
    if (st != STATUS_OK)
        return st;
    struct png_work work = {0};
    work.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &work, on_error, on_warning);
    work.info = work.png ? png_create_info_struct(work.png) : NULL;
    st = work.info ? write_all(&work, picture, options, err)
                   : error_set(err, STATUS_NOMEM, "cannot start libpng");
    png_destroy_write_struct(&work.png, &work.info);
    if (st != STATUS_OK) {
        text_buffer_fini(&work.out);
        return st;
    }
    *bytes = (uint8_t *)work.out.bytes;
    *n_bytes = work.out.n;
    return STATUS_OK;
}
