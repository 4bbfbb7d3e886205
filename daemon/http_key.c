/*
 * http_key.c - one line of a private file, compared in constant time.
 */
#include "daemon/http_key.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const char scheme[] = "Bearer ";

static enum status check_file(int file, const char *path, struct error *err)
{
    struct stat info;
    if (fstat(file, &info) != 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot look at key file '%s'", path);
    if (!S_ISREG(info.st_mode))
        return error_set(err, STATUS_INVALID, "key file '%s' is not a regular file", path);
    if (info.st_mode & (S_IRWXG | S_IRWXO))
        return error_set(err, STATUS_INVALID,
                         "key file '%s' can be read by others (mode %03o); run chmod 600 on it",
                         path, (unsigned)(info.st_mode & 0777));
    return STATUS_OK;
}

enum status http_key_load(struct http_key *out, const char *path, struct error *err)
{
    char line[HTTP_KEY_CHARS_MAX + 2] = ""; /* a key, its line's end, a NUL */
    memset(out, 0, sizeof(*out));
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return error_set_errno(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, errno,
                               "cannot open key file '%s'", path);
    enum status st = check_file(file, path, err);
    ssize_t n = st == STATUS_OK ? read(file, line, sizeof(line) - 1) : 0;
    if (n < 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot read key file '%s'", path);
    close(file);
    if (st != STATUS_OK)
        return st;
    size_t length = strcspn(line, "\r\n");
    size_t visible = 0;
    while (visible < length && line[visible] > 0x20 && line[visible] < 0x7f)
        visible++;
    if (visible != length || length < HTTP_KEY_CHARS_MIN || length > HTTP_KEY_CHARS_MAX)
        return error_set(err, STATUS_INVALID,
                         "key file '%s': expected %d to %d visible characters on the first line",
                         path, HTTP_KEY_CHARS_MIN, HTTP_KEY_CHARS_MAX);
    memcpy(out->text, line, length);
    return STATUS_OK;
}

bool http_key_fits(const struct http_key *key, const char *header)
{
    if (!header || strncasecmp(header, scheme, sizeof(scheme) - 1) != 0)
        return false;
    const char *given = header + sizeof(scheme) - 1;
    size_t n_given = strlen(given), n_key = strlen(key->text);
    unsigned difference = n_given != n_key;
    for (size_t i = 0; i < n_key; i++)
        difference |= (unsigned char)key->text[i] ^ (unsigned char)given[i < n_given ? i : n_given];
    return difference == 0;
}
