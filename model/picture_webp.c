/*
 * picture_webp.c - WebP by libwebp; the demultiplexer finds the first frame and the EXIF chunk.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>

#include "model/exif.h"
#include "model/picture_codec.h"

enum { QUALITY_LOSSLESS = 101 };

static int find_orientation(const WebPDemuxer *demuxer)
{
    WebPChunkIterator chunk;
    int orientation = 1;
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk))
        orientation = exif_orientation(chunk.chunk.bytes, chunk.chunk.size);
    WebPDemuxReleaseChunkIterator(&chunk);
    return orientation;
}

/* Decodes the frame into its place on the canvas; what it does not cover stays transparent. */
static enum status decode_frame(struct picture *canvas, const WebPIterator *frame,
                                struct error *err)
{
    size_t channels = (size_t)canvas->channels;
    size_t row_bytes = picture_row_bytes(canvas);
    size_t start = (size_t)frame->y_offset * row_bytes + (size_t)frame->x_offset * channels;
    size_t room = picture_bytes(canvas) - start;
    uint8_t *to = canvas->pixels + start;
    uint8_t *done = canvas->channels == 4
                        ? WebPDecodeRGBAInto(frame->fragment.bytes, frame->fragment.size, to, room,
                                             (int)row_bytes)
                        : WebPDecodeRGBInto(frame->fragment.bytes, frame->fragment.size, to, room,
                                            (int)row_bytes);
    return done ? STATUS_OK : error_set(err, STATUS_INVALID, "WebP: damaged or cut short");
}

static enum status read_first_frame(struct picture **out, const WebPDemuxer *demuxer,
                                    const struct picture_limits *limits, struct error *err)
{
    int width = (int)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    int height = (int)WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    enum status st = picture_check_size(limits, width, height, err);
    if (st != STATUS_OK)
        return st;
    WebPIterator frame;
    if (!WebPDemuxGetFrame(demuxer, 1, &frame)) {
        WebPDemuxReleaseIterator(&frame);
        return error_set(err, STATUS_INVALID, "WebP: no frame");
    }
    bool inside = frame.x_offset >= 0 && frame.y_offset >= 0 && frame.width > 0 &&
                  frame.height > 0 && frame.x_offset + frame.width <= width &&
                  frame.y_offset + frame.height <= height;
    bool covers = frame.width == width && frame.height == height;
    if (!inside || !frame.complete)
        st = error_set(err, STATUS_INVALID, "WebP: the first frame is cut short or lies outside");
    else
        st = picture_create(out, width, height, frame.has_alpha || !covers ? 4 : 3, err);
    if (st == STATUS_OK)
        st = decode_frame(*out, &frame, err);
    WebPDemuxReleaseIterator(&frame);
    if (st != STATUS_OK) {
        picture_destroy(*out);
        *out = NULL;
    }
    return st;
}

enum status picture_webp_read(struct picture **out, int *orientation, const uint8_t *bytes,
                              size_t n_bytes, const struct picture_limits *limits,
                              struct error *err)
{
    *out = NULL;
    *orientation = 1;
    WebPData data = {.bytes = bytes, .size = n_bytes};
    WebPDemuxer *demuxer = WebPDemux(&data);
    if (!demuxer)
        return error_set(err, STATUS_INVALID, "WebP: damaged or cut short");
    enum status st = read_first_frame(out, demuxer, limits, err);
    if (st == STATUS_OK)
        *orientation = find_orientation(demuxer);
    WebPDemuxDelete(demuxer);
    return st;
}

enum status picture_webp_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                               int quality, struct error *err)
{
    *bytes = NULL;
    if (picture->width > WEBP_MAX_DIMENSION || picture->height > WEBP_MAX_DIMENSION)
        return error_set(err, STATUS_INVALID, "a WebP of %dx%d, expected sides of at most %d",
                         picture->width, picture->height, WEBP_MAX_DIMENSION);
    int stride = (int)picture_row_bytes(picture);
    bool alpha = picture->channels == 4;
    uint8_t *encoded = NULL;
    size_t n;
    if (quality >= QUALITY_LOSSLESS)
        n = (alpha ? WebPEncodeLosslessRGBA : WebPEncodeLosslessRGB)(
            picture->pixels, picture->width, picture->height, stride, &encoded);
    else
        n = (alpha ? WebPEncodeRGBA : WebPEncodeRGB)(
            picture->pixels, picture->width, picture->height, stride, (float)quality, &encoded);
    if (n > 0)
        *bytes = malloc(n); /* ours are freed by free(), libwebp's by WebPFree() */
    if (*bytes)
        memcpy(*bytes, encoded, n);
    WebPFree(encoded);
    *n_bytes = n;
    return *bytes ? STATUS_OK : error_set(err, STATUS_NOMEM, "cannot write a WebP");
}
