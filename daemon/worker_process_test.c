/*
 * Goal: a child that ends in any way is seen and reaped, a running one can be killed, its cores are
 * those asked for, and the folder of sockets comes, goes, and is swept when its process was killed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "daemon/private_folder.h"
#include "daemon/worker_process.h"

enum { LONG_MS = 20000 };

static struct worker_process start(const char *script)
{
    struct worker_process process;
    struct error err;
    cpu_set_t cpus;
    const char *arguments[] = {"sh", "-c", script, NULL};
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    assert_int_equal(worker_process_start(&process, "/bin/sh", arguments, &cpus, &err), STATUS_OK);
    return process;
}

static void expect_end(const char *script, const char *expected)
{
    struct worker_process process = start(script);
    char end[WORKER_PROCESS_END_BYTES];
    assert_int_equal(worker_process_reap(&process, LONG_MS, end), STATUS_OK);
    assert_non_null(strstr(end, expected));
    assert_int_equal(process.pid, 0);
    assert_int_equal(process.life_fd, -1);
}

static void test_ends_are_told(void **state)
{
    (void)state;
    expect_end("exit 0", "exit 0");
    expect_end("exit 3", "exit 3");
    expect_end("kill -9 $$", "signal 9");
    expect_end("kill -SEGV $$", "signal 11");
}

static void test_running_one_is_killed(void **state)
{
    struct worker_process process = start("exec sleep 1000");
    char end[WORKER_PROCESS_END_BYTES];
    pid_t pid = process.pid;
    (void)state;
    assert_int_equal(worker_process_reap(&process, 0, end), STATUS_TIMEOUT);
    worker_process_kill(&process);
    assert_int_equal(kill(pid, 0), -1);
    worker_process_kill(&process); /* twice is fine */
    assert_int_equal(worker_process_reap(&process, 0, end), STATUS_OK);
}

static void test_program_that_is_not_there(void **state)
{
    struct worker_process process;
    struct error err;
    cpu_set_t cpus;
    const char *arguments[] = {"none", NULL};
    char end[WORKER_PROCESS_END_BYTES];
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(cpus), &cpus), 0);
    assert_int_equal(worker_process_start(&process, "/nowhere/none", arguments, &cpus, &err),
                     STATUS_OK);
    assert_int_equal(worker_process_reap(&process, LONG_MS, end), STATUS_OK);
    assert_string_equal(end, "exit 127");
}

static void test_cores_and_inheritance(void **state)
{
    struct worker_process process;
    struct error err;
    cpu_set_t all, one;
    /* One core; stdin at its end; nothing open beyond the standard three, the pipe of life and what
     * /bin/sh reads. */
    const char *script =
        "test \"$(grep Cpus_allowed_list /proc/self/status | cut -f2 | tr -d ' ')\" = $0 && "
        "test -z \"$(cat)\"";
    char core[16];
    const char *arguments[] = {"sh", "-c", script, core, NULL};
    char end[WORKER_PROCESS_END_BYTES];
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    snprintf(core, sizeof(core), "%d", cpu);
    assert_int_equal(worker_process_start(&process, "/bin/sh", arguments, &one, &err), STATUS_OK);
    assert_int_equal(worker_process_reap(&process, LONG_MS, end), STATUS_OK);
    assert_string_equal(end, "exit 0");
}

static void put_socket(const struct private_folder *folder, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char endpoint[PRIVATE_FOLDER_ENDPOINT_BYTES];
    private_folder_endpoint(folder, endpoint, name);
    assert_true(strlen(endpoint + strlen("ipc://")) < sizeof(address.sun_path));
    strcpy(address.sun_path, endpoint + strlen("ipc://"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

static void test_folder(void **state)
{
    struct private_folder folder;
    struct stat info;
    (void)state;
    assert_int_equal(private_folder_create(&folder, NULL), STATUS_OK);
    assert_int_equal(stat(folder.path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    put_socket(&folder, "control");
    put_socket(&folder, "a-name-of-23-characters");
    struct private_folder copy = folder;
    private_folder_remove(&folder);
    assert_int_equal(stat(copy.path, &info), -1);
    private_folder_remove(&folder); /* an ended one is fine */
}

/* A child makes a folder and dies without a goodbye; the next create sweeps it. */
static void test_folder_of_a_killed_process_is_swept(void **state)
{
    struct private_folder folder, left = {0};
    struct stat info;
    int tell[2];
    (void)state;
    assert_int_equal(pipe(tell), 0);
    pid_t pid = fork();
    if (pid == 0) {
        private_folder_create(&folder, NULL);
        put_socket(&folder, "control");
        if (write(tell[1], &folder, sizeof(folder)) < 0)
            _exit(1);
        _exit(0);
    }
    assert_int_equal(read(tell[0], &left, sizeof(left)), sizeof(left));
    waitpid(pid, NULL, 0);
    assert_int_equal(stat(left.path, &info), 0);
    assert_int_equal(private_folder_create(&folder, NULL), STATUS_OK);
    assert_int_equal(stat(left.path, &info), -1);
    private_folder_remove(&folder);
    close(tell[0]);
    close(tell[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_are_told),
        cmocka_unit_test(test_running_one_is_killed),
        cmocka_unit_test(test_program_that_is_not_there),
        cmocka_unit_test(test_cores_and_inheritance),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_folder_of_a_killed_process_is_swept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
