/*
 * worker_process.c - fork and exec with what a worker must inherit and nothing else.
 */
#include "daemon/worker_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXEC_FAILED = 127 };

enum status worker_process_find(char path[WORKER_PROCESS_PATH_BYTES], struct error *err)
{
    ssize_t length = readlink("/proc/self/exe", path, WORKER_PROCESS_PATH_BYTES - 1);
    if (length < 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot read /proc/self/exe");
    path[length] = 0;
    char *slash = strrchr(path, '/');
    if (!slash || slash + sizeof("/mgpt-worker") > path + WORKER_PROCESS_PATH_BYTES)
        return error_set(err, STATUS_NOT_FOUND, "the path of this program is too long");
    memcpy(slash, "/mgpt-worker", sizeof("/mgpt-worker"));
    if (access(path, X_OK) != 0)
        return error_set_errno(err, STATUS_NOT_FOUND, errno, "cannot execute '%s'", path);
    return STATUS_OK;
}

/* Between fork and exec: async-signal-safe calls only. */
static _Noreturn void run_child(const char *path, const char *const *arguments,
                                const cpu_set_t *cpus, int life_fd, pid_t parent)
{
    sigset_t none;
    sigemptyset(&none);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(EXEC_FAILED); /* the parent died before the line above */
    int null_fd = open("/dev/null", O_RDONLY);
    dup2(null_fd, STDIN_FILENO);
    if (null_fd > STDERR_FILENO)
        close(null_fd);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    fcntl(life_fd, F_SETFD, 0);
    /* A failure leaves the worker on all cores: slower, not wrong. */
    sched_setaffinity(0, sizeof(*cpus), cpus);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(path, (char *const *)arguments);
    static const char text[] = "mgpt: cannot execute mgpt-worker\n";
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
        _exit(EXEC_FAILED);
    _exit(EXEC_FAILED);
}

enum status worker_process_start(struct worker_process *out, const char *path,
                                 const char *const *arguments, const cpu_set_t *cpus,
                                 struct error *err)
{
    out->pid = 0;
    out->life_fd = -1;
    int life[2];
    if (pipe2(life, O_CLOEXEC) != 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot make a pipe for a worker");
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        run_child(path, arguments, cpus, life[1], parent);
    int reason = errno;
    close(life[1]);
    if (pid < 0) {
        close(life[0]);
        return error_set_errno(err, STATUS_IO, reason, "cannot start '%s'", path);
    }
    out->pid = pid;
    out->life_fd = life[0];
    return STATUS_OK;
}

static void forget(struct worker_process *process)
{
    if (process->life_fd >= 0)
        close(process->life_fd);
    process->life_fd = -1;
    process->pid = 0;
}

void worker_process_kill(struct worker_process *process)
{
    if (process->pid <= 0)
        return;
    kill(process->pid, SIGKILL);
    while (waitpid(process->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    forget(process);
}

enum status worker_process_reap(struct worker_process *process, int wait_ms,
                                char end[WORKER_PROCESS_END_BYTES])
{
    if (process->pid <= 0) {
        snprintf(end, WORKER_PROCESS_END_BYTES, "not running");
        return STATUS_OK;
    }
    struct pollfd life = {.fd = process->life_fd, .events = POLLIN};
    if (poll(&life, 1, wait_ms) <= 0)
        return STATUS_TIMEOUT;
    int status = 0;
    while (waitpid(process->pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status))
        snprintf(end, WORKER_PROCESS_END_BYTES, "signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(end, WORKER_PROCESS_END_BYTES, "exit %d", WEXITSTATUS(status));
    forget(process);
    return STATUS_OK;
}

static size_t read_all(int fd, char *text, size_t bytes)
{
    size_t used = 0;
    ssize_t n = 0;
    while (used + 1 < bytes &&
           ((n = read(fd, text + used, bytes - used - 1)) > 0 || (n < 0 && errno == EINTR)))
        used += n > 0 ? (size_t)n : 0;
    text[used] = 0;
    return used;
}

enum status worker_process_ask(char *text, size_t bytes, const char *const *arguments,
                               struct error *err)
{
    char path[WORKER_PROCESS_PATH_BYTES];
    int ends[2], code = -1;
    enum status st = worker_process_find(path, err);
    if (st != STATUS_OK)
        return st;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_set_errno(err, STATUS_IO, errno, "cannot make a pipe");
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execv(path, (char *const *)arguments);
        _exit(EXEC_FAILED);
    }
    close(ends[1]);
    if (pid > 0)
        read_all(ends[0], text, bytes);
    close(ends[0]);
    while (pid > 0 && waitpid(pid, &code, 0) < 0 && errno == EINTR)
        continue;
    if (code != 0)
        return error_set(err, STATUS_IO, "'%s %s' failed", path, arguments[1]);
    return STATUS_OK;
}
