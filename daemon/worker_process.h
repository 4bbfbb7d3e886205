/*
 * worker_process.h - a mgpt-worker started here: its pid, its cores, and a descriptor that tells
 * when it is gone.
 *
 * The child holds the only write end of a pipe, so the read end sees its end at once, however it
 * ended. The child is killed by the kernel when the thread that started it ends (PR_SET_PDEATHSIG):
 * nothing keeps memory after mgptd. Threads: start, and the whole life, on one thread (the engine's
 * loop).
 */
#ifndef MGPT_DAEMON_WORKER_PROCESS_H
#define MGPT_DAEMON_WORKER_PROCESS_H

#include <sched.h>
#include <sys/types.h>

#include "base/error.h"

enum {
    WORKER_PROCESS_ARGUMENTS_MAX = 24,
    WORKER_PROCESS_PATH_BYTES = 4096,
    WORKER_PROCESS_END_BYTES = 64
};

struct worker_process {
    pid_t pid;   /* 0: none */
    int life_fd; /* readable (end of file) when the process is gone; -1: none */
};

/* "mgpt-worker" in the folder of the running program. STATUS_NOT_FOUND: none there, or it cannot be
 * executed. */
enum status worker_process_find(char path[WORKER_PROCESS_PATH_BYTES], struct error *err);

/*
 * Runs mgpt-worker with arguments (NULL at the end) to its end and takes its stdout, fewer than
 * `bytes`; stderr is ours. For its questions, which end by themselves: --measure, --devices.
 * STATUS_IO: it did not end with exit code 0.
 */
enum status worker_process_ask(char *text, size_t bytes, const char *const *arguments,
                               struct error *err);

/*
 * Starts path with arguments (NULL at the end; arguments[0] is the program's name) on the given
 * cores.
 *
 * stdin is /dev/null, stdout and stderr are our stderr, SIGINT is ignored (a terminal's interrupt
 * is for us to handle). STATUS_IO: no process, no pipe. An exec that fails shows as a process that
 * ends with exit code 127.
 */
enum status worker_process_start(struct worker_process *out, const char *path,
                                 const char *const *arguments, const cpu_set_t *cpus,
                                 struct error *err);

/* Ends it now (SIGKILL) and waits for it. A zeroed or ended one is fine. */
void worker_process_kill(struct worker_process *process);

/*
 * Waits up to wait_ms for the end and forgets the process; how it ended as text ("exit 1", "signal
 * 9"). STATUS_TIMEOUT: it still runs.
 */
enum status worker_process_reap(struct worker_process *process, int wait_ms,
                                char end[WORKER_PROCESS_END_BYTES]);

#endif
