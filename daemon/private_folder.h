/*
 * private_folder.h - the folder of one engine's sockets, readable by its user alone, gone when the
 * engine is.
 *
 * Out:  $XDG_RUNTIME_DIR/mgpt-PID-XXXXXX or /tmp/mgpt-PID-XXXXXX, mode 0700, with a path short
 * enough for sockets. Owns: the folder and every socket in it. Folders whose process was killed are
 * swept at the next create.
 */
#ifndef MGPT_DAEMON_PRIVATE_FOLDER_H
#define MGPT_DAEMON_PRIVATE_FOLDER_H

#include "base/error.h"

enum {
    PRIVATE_FOLDER_BYTES = 80, /* of its path, with the final 0 */
    PRIVATE_FOLDER_NAME_BYTES =
        24, /* of a socket's name; both fit in the 108 bytes of sockaddr_un */
    PRIVATE_FOLDER_ENDPOINT_BYTES = 8 + PRIVATE_FOLDER_BYTES + PRIVATE_FOLDER_NAME_BYTES
};

struct private_folder {
    char path[PRIVATE_FOLDER_BYTES];
};

/* STATUS_IO: neither place lets us make a folder. */
enum status private_folder_create(struct private_folder *out, struct error *err);

/* "ipc://PATH/name" in the caller's storage. name: at most PRIVATE_FOLDER_NAME_BYTES - 1 bytes. */
void private_folder_endpoint(const struct private_folder *folder,
                             char endpoint[PRIVATE_FOLDER_ENDPOINT_BYTES], const char *name);

/* Removes the sockets and the folder. A zeroed struct is fine. */
void private_folder_remove(struct private_folder *folder);

#endif
