/*
 * confine_test.c - in a child process each: what is refused fails with EPERM, what is needed still
 * works.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/confine.h"

enum { CALL_IO_URING_SETUP = 425, CALL_FSOPEN = 430, CALL_CLONE3 = 435 };

static void *do_nothing(void *argument)
{
    return argument;
}

/* Exit code of the child: 0, or the line that went wrong; 77 where the system has no seccomp. */
#define EXPECT(expression)                                                                         \
    do {                                                                                           \
        if (!(expression))                                                                         \
            return __LINE__ % 76 + 1;                                                              \
    } while (0)

static int act(enum confine_kind kind)
{
    struct error err;
    enum status st = confine_process(kind, &err);
    if (st == STATUS_UNSUPPORTED)
        return 77;
    EXPECT(st == STATUS_OK);
    EXPECT(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1 && errno == EPERM);
    EXPECT(mount("none", "/", NULL, MS_REMOUNT, NULL) == -1 && errno == EPERM);
    EXPECT(unshare(CLONE_NEWUSER) == -1 && errno == EPERM);
    EXPECT(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL) == -1 &&
           errno == EPERM);
    EXPECT(syscall(CALL_CLONE3, NULL, 0) == -1 && errno == ENOSYS);
    EXPECT(syscall(CALL_IO_URING_SETUP, 1, NULL) == -1 && errno == EPERM);
    EXPECT(syscall(CALL_FSOPEN, "tmpfs", 0) == -1 && errno == EPERM);
    EXPECT(socket(AF_PACKET, SOCK_RAW, 0) == -1 && errno == EAFNOSUPPORT);
    EXPECT(socket(AF_VSOCK, SOCK_STREAM, 0) == -1 && errno == EAFNOSUPPORT);
    EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    int file = open("/proc/self/status", O_RDONLY);
    EXPECT(file >= 0);
    close(file);
    static const int families[] = {AF_INET, AF_INET6, AF_NETLINK};
    for (int i = 0; i < 3; i++) {
        int fd = socket(families[i], SOCK_DGRAM, 0);
        EXPECT(fd >= 0 || errno == EAFNOSUPPORT); /* a machine without IPv6 */
        close(fd);
    }
    int pair[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, do_nothing, NULL) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    EXPECT(kind == CONFINE_LEAF ? child == -1 && errno == EPERM
                                : child > 0 && waitpid(child, NULL, 0) == child);
    char *const arguments[] = {"true", NULL};
    execv("/bin/true", arguments);
    EXPECT(kind == CONFINE_LEAF && errno == EPERM);
    return 0;
}

static void try_kind(enum confine_kind kind)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(act(kind));
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
        print_message("skipped: no seccomp\n");
    else
        assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_leaf(void **state)
{
    (void)state;
    try_kind(CONFINE_LEAF);
}

/* Ends as /bin/true does: exec works. */
static void test_parent(void **state)
{
    (void)state;
    try_kind(CONFINE_PARENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_leaf), cmocka_unit_test(test_parent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
