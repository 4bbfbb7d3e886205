/*
 * crew.h - what the workers of one engine share: the control socket, the folder of sockets, the
 * command that starts one.
 *
 * Owns:    the ZeroMQ context, the ROUTER socket every worker connects to, the private folder.
 * Threads: the engine's loop alone.
 */
#ifndef MGPT_DAEMON_CREW_H
#define MGPT_DAEMON_CREW_H

#include <sched.h>
#include <stdbool.h>

#include "daemon/private_folder.h"
#include "daemon/worker_process.h"

struct crew {
    void *context, *router;
    struct private_folder folder;
    char endpoint[PRIVATE_FOLDER_ENDPOINT_BYTES];
    char worker_path[WORKER_PROCESS_PATH_BYTES];
    const char *model_dir, *vq_dir, *device, *log_level; /* borrowed; vq_dir may be NULL */
    bool no_confine;                                     /* workers keep what they never need */
    int threads;                                         /* of a worker; 0: all its cores */
    cpu_set_t allowed;                                   /* the cores this process may use */
    int n_lives; /* sockets are named after it, so that no new one meets a dead one's file */
};

/* worker_path NULL: beside the own program. On error nothing is held. */
enum status crew_open(struct crew *out, const char *worker_path, struct error *err);
void crew_close(struct crew *crew); /* a zeroed one is fine */

#endif
