/*
 * file_bytes.c - open without blocking, insist on a regular file, then read or map.
 */
#include "model/file_bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_name(mode_t mode)
{
    return S_ISDIR(mode)    ? "a folder"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* O_NONBLOCK: opening a pipe without a writer must not wait. It has no effect on regular files. */
static enum status open_regular(int *fd, size_t *n_bytes, const char *path, struct error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        enum status st = errno == ENOENT || errno == ENOTDIR ? STATUS_NOT_FOUND : STATUS_IO;
        return error_set_errno(err, st, errno, "cannot open '%s'", path);
    }
    struct stat info;
    enum status st = STATUS_OK;
    if (fstat(*fd, &info) != 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot look at '%s'", path);
    else if (!S_ISREG(info.st_mode))
        st = error_set(err, STATUS_INVALID, "'%s' is %s, expected a regular file", path,
                       kind_name(info.st_mode));
    if (st != STATUS_OK) {
        close(*fd);
        return st;
    }
    *n_bytes = (size_t)info.st_size;
    return STATUS_OK;
}

static enum status read_all(unsigned char *bytes, size_t n_bytes, int fd, const char *path,
                            struct error *err)
{
    size_t done = 0;
    while (done < n_bytes) {
        ssize_t got = read(fd, bytes + done, n_bytes - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(err, STATUS_IO, errno, "cannot read '%s'", path);
        if (got == 0)
            return error_set(err, STATUS_IO, "'%s' ended after %zu bytes, expected %zu", path, done,
                             n_bytes);
        done += (size_t)got;
    }
    return STATUS_OK;
}

enum status file_bytes_read(unsigned char **bytes, size_t *n_bytes, const char *path,
                            size_t bytes_max, struct error *err)
{
    int fd;
    *bytes = NULL;
    *n_bytes = 0;
    size_t size;
    enum status st = open_regular(&fd, &size, path, err);
    if (st != STATUS_OK)
        return st;
    unsigned char *all = NULL;
    if (size > bytes_max)
        st = error_set(err, STATUS_INVALID, "'%s' has %zu bytes, expected at most %zu", path, size,
                       bytes_max);
    else if (!(all = malloc(size + 1)))
        st = error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes for '%s'", size, path);
    else
        st = read_all(all, size, fd, path, err);
    close(fd);
    if (st != STATUS_OK) {
        free(all);
        return st;
    }
    all[size] = 0;
    *bytes = all;
    *n_bytes = size;
    return STATUS_OK;
}

enum status file_mapping_open(struct file_mapping *out, const char *path, struct error *err)
{
    static const unsigned char nothing[1];
    int fd;
    *out = (struct file_mapping){nothing, 0};
    size_t size;
    enum status st = open_regular(&fd, &size, path, err);
    if (st != STATUS_OK)
        return st;
    if (size > 0) {
        void *bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            st = error_set_errno(err, STATUS_NOMEM, errno, "cannot map the %zu bytes of '%s'", size,
                                 path);
        else
            *out = (struct file_mapping){bytes, size};
    }
    close(fd);
    return st;
}

void file_mapping_drop_pages(const struct file_mapping *mapping)
{
    if (mapping->n_bytes > 0)
        madvise((void *)(uintptr_t)mapping->bytes, mapping->n_bytes, MADV_DONTNEED);
}

void file_mapping_close(struct file_mapping *mapping)
{
    if (mapping->n_bytes > 0)
        munmap((void *)(uintptr_t)mapping->bytes, mapping->n_bytes);
    mapping->n_bytes = 0;
}
