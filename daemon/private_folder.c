/*
 * private_folder.c - mkdtemp, and a careful sweep: only sockets in folders of our own user with our
 * own name pattern.
 */
#include "daemon/private_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

enum { SWEEP_ENTRIES_MAX = 10000 }; /* names looked at in the place of the folders */

/* Removes the sockets in a folder and then the folder; anything else in it stays, and then so does
 * the folder. */
static void remove_folder(int place_fd, const char *name)
{
    int fd = openat(place_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    struct dirent *entry;
    struct stat info;
    while ((entry = readdir(dir)))
        if (fstatat(fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(info.st_mode))
            unlinkat(fd, entry->d_name, 0);
    closedir(dir);
    unlinkat(place_fd, name, AT_REMOVEDIR);
}

/* A folder mgpt-PID-XXXXXX of ours whose process is gone. */
static bool is_stale(int place_fd, const char *name)
{
    int pid = 0;
    int used = 0;
    struct stat info;
    if (sscanf(name, "mgpt-%d-%n", &pid, &used) != 1 || used == 0 || pid <= 0 ||
        strlen(name + used) != 6)
        return false;
    if (fstatat(place_fd, name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(info.st_mode) ||
        info.st_uid != geteuid())
        return false;
    return kill(pid, 0) != 0 && errno == ESRCH;
}

static void sweep(const char *place)
{
    int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return;
    }
    struct dirent *entry;
    for (int n = 0; n < SWEEP_ENTRIES_MAX && (entry = readdir(dir)); n++)
        if (is_stale(fd, entry->d_name))
            remove_folder(fd, entry->d_name);
    closedir(dir);
}

static bool create_in(struct private_folder *out, const char *place)
{
    int length = snprintf(out->path, sizeof(out->path), "%s/mgpt-%d-XXXXXX", place, (int)getpid());
    if (length >= (int)sizeof(out->path))
        return false;
    sweep(place);
    return mkdtemp(out->path) != NULL;
}

enum status private_folder_create(struct private_folder *out, struct error *err)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (runtime && runtime[0] == '/' && create_in(out, runtime))
        return STATUS_OK;
    if (create_in(out, "/tmp"))
        return STATUS_OK;
    int reason = errno;
    out->path[0] = 0;
    return error_set_errno(err, STATUS_IO, reason, "cannot make a folder for sockets in /tmp");
}

void private_folder_endpoint(const struct private_folder *folder,
                             char endpoint[PRIVATE_FOLDER_ENDPOINT_BYTES], const char *name)
{
    CHECK(strlen(name) < PRIVATE_FOLDER_NAME_BYTES);
    snprintf(endpoint, PRIVATE_FOLDER_ENDPOINT_BYTES, "ipc://%s/%s", folder->path, name);
}

void private_folder_remove(struct private_folder *folder)
{
    char *slash = strrchr(folder->path, '/');
    if (!slash)
        return;
    *slash = 0;
    int fd = open(slash == folder->path ? "/" : folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        remove_folder(fd, slash + 1);
        close(fd);
    }
    folder->path[0] = 0;
}
