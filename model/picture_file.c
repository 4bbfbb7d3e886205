/*
 * picture_file.c - tells the formats apart, holds the limits, reads and writes files.
 */
#include "model/picture_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/exif.h"
#include "model/file_bytes.h"
#include "model/picture_codec.h"

enum { QUALITY_DEFAULT = 90, QUALITY_MAX = 100, PATH_BYTES_MAX = 4096, BEGIN_BYTES = 4 };

enum status picture_check_size(const struct picture_limits *limits, int64_t width, int64_t height,
                               struct error *err)
{
    if (width < 1 || height < 1 || width > limits->side_max || height > limits->side_max)
        return error_set(err, STATUS_INVALID,
                         "a picture of %lldx%lld pixels, expected sides of 1 to %d",
                         (long long)width, (long long)height, limits->side_max);
    if (width * height > limits->pixels_max)
        return error_set(err, STATUS_INVALID,
                         "a picture of %lldx%lld pixels, expected at most %lld in all",
                         (long long)width, (long long)height, (long long)limits->pixels_max);
    return STATUS_OK;
}

/* NULL when the bytes begin like none of the formats. */
static picture_reader find_reader(const uint8_t *bytes, size_t n_bytes)
{
    static const uint8_t png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const uint8_t jpeg[] = {0xff, 0xd8, 0xff};
    if (n_bytes >= sizeof(png) && memcmp(bytes, png, sizeof(png)) == 0)
        return picture_png_read;
    if (n_bytes >= sizeof(jpeg) && memcmp(bytes, jpeg, sizeof(jpeg)) == 0)
        return picture_jpeg_read;
    if (n_bytes >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
        return picture_webp_read;
    return NULL;
}

static enum status refuse_kind(const uint8_t *bytes, size_t n_bytes, struct error *err)
{
    char begin[3 * BEGIN_BYTES + 1] = "";
    for (size_t i = 0; i < BEGIN_BYTES && i < n_bytes; i++)
        snprintf(begin + 3 * i, 4, " %02x", bytes[i]);
    return error_set(err, STATUS_UNSUPPORTED,
                     "the picture is no PNG, JPEG or WebP: it begins with%s", begin);
}

enum status picture_read(struct picture **out, const void *bytes, size_t n_bytes,
                         const struct picture_limits *limits, struct error *err)
{
    *out = NULL;
    struct picture_limits defaults = PICTURE_LIMITS_DEFAULT;
    if (!limits)
        limits = &defaults;
    if (n_bytes == 0)
        return error_set(err, STATUS_INVALID, "the picture is empty");
    if (n_bytes > limits->bytes_max)
        return error_set(err, STATUS_INVALID, "a picture file of %zu bytes, expected at most %zu",
                         n_bytes, limits->bytes_max);
    picture_reader reader = find_reader(bytes, n_bytes);
    if (!reader)
        return refuse_kind(bytes, n_bytes, err);
    int orientation;
    enum status st = reader(out, &orientation, bytes, n_bytes, limits, err);
    if (st == STATUS_OK)
        st = exif_turn_upright(out, orientation, err);
    if (st != STATUS_OK) {
        picture_destroy(*out);
        *out = NULL;
    }
    return st;
}

enum status picture_read_file(struct picture **out, const char *path,
                              const struct picture_limits *limits, struct error *err)
{
    *out = NULL;
    struct picture_limits defaults = PICTURE_LIMITS_DEFAULT;
    if (!limits)
        limits = &defaults;
    unsigned char *bytes;
    size_t n;
    enum status st = file_bytes_read(&bytes, &n, path, limits->bytes_max, err);
    if (st != STATUS_OK)
        return st;
    st = picture_read(out, bytes, n, limits, err);
    free(bytes);
    return st == STATUS_OK ? st : error_wrap(err, st, "'%s'", path);
}

static enum status write_flat(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                              const struct picture_write_options *options, struct error *err)
{
    int quality = options->quality ? options->quality : QUALITY_DEFAULT;
    if (options->format == PICTURE_JPEG)
        return picture_jpeg_write(bytes, n_bytes, picture, quality, err);
    return picture_webp_write(bytes, n_bytes, picture, quality, err);
}

enum status picture_write(uint8_t **bytes, size_t *n_bytes, const struct picture *picture,
                          const struct picture_write_options *options, struct error *err)
{
    *bytes = NULL;
    *n_bytes = 0;
    int quality_max = QUALITY_MAX + (options->format == PICTURE_WEBP ? 1 : 0);
    if (options->quality < 0 || options->quality > quality_max)
        return error_set(err, STATUS_INVALID, "quality %d, expected 1 to %d", options->quality,
                         quality_max);
    if (options->format == PICTURE_PNG)
        return picture_png_write(bytes, n_bytes, picture, options, err);
    bool as_is = options->format == PICTURE_JPEG ? picture->channels == 1 || picture->channels == 3
                                                 : picture->channels >= 3;
    if (as_is)
        return write_flat(bytes, n_bytes, picture, options, err);
    struct picture *changed = NULL;
    enum status st = options->format == PICTURE_JPEG || picture->channels == 1
                         ? picture_to_rgb(&changed, picture, err)
                         : picture_to_rgba(&changed, picture, err);
    if (st == STATUS_OK)
        st = write_flat(bytes, n_bytes, changed, options, err);
    picture_destroy(changed);
    return st;
}

static enum status write_bytes(const char *path, int flags, const uint8_t *bytes, size_t n,
                               struct error *err)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0666);
    if (fd < 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", path);
    while (n > 0) {
        ssize_t written = write(fd, bytes, n);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0) {
            int problem = errno;
            close(fd);
            return error_set_errno(err, STATUS_IO, problem, "cannot write '%s'", path);
        }
        bytes += written;
        n -= (size_t)written;
    }
    if (close(fd) != 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", path);
    return STATUS_OK;
}

/* A device or a pipe, such as /dev/stdout, is written as it is: a rename would replace it. */
static enum status put_file(const char *path, const uint8_t *bytes, size_t n, struct error *err)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        return write_bytes(path, 0, bytes, n, err);
    char temporary[PATH_BYTES_MAX];
    int length = snprintf(temporary, sizeof(temporary), "%s.%ld.part", path, (long)getpid());
    if (length >= (int)sizeof(temporary))
        return error_set(err, STATUS_INVALID, "the path '%.60s...' is too long", path);
    enum status st = write_bytes(temporary, O_CREAT | O_TRUNC, bytes, n, err);
    if (st == STATUS_OK && rename(temporary, path) != 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot write '%s'", path);
    if (st != STATUS_OK)
        unlink(temporary);
    return st;
}

enum status picture_write_file(const char *path, const struct picture *picture,
                               const struct picture_write_options *options, struct error *err)
{
    uint8_t *bytes;
    size_t n;
    enum status st = picture_write(&bytes, &n, picture, options, err);
    if (st == STATUS_OK)
        st = put_file(path, bytes, n, err);
    free(bytes);
    return st;
}

int picture_parse_format(const char *name)
{
    static const struct {
        const char *name;
        enum picture_format format;
    } names[] = {{"png", PICTURE_PNG},
                 {"jpg", PICTURE_JPEG},
                 {"jpeg", PICTURE_JPEG},
                 {"webp", PICTURE_WEBP}};
    const char *dot = strrchr(name, '.');
    const char *end = dot ? dot + 1 : name;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(end, names[i].name) == 0)
            return (int)names[i].format;
    return -1;
}
