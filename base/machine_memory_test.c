/*
 * machine_memory_test.c - goal: the room of a process is the least of what the machine and the
 * groups it is in leave, in both versions of the groups; what cannot be read limits nothing.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/machine_memory.h"

#define MEMINFO                                                                                    \
    {                                                                                              \
        "/proc/meminfo", "MemTotal:       1000000 kB\nMemFree: 1 kB\nMemAvailable:    600000 kB\n" \
    }

enum { FILES_MAX = 12 };

struct file {
    const char *path, *text;
};

static void write_file(const char *root, const struct file *file)
{
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s%s", root, file->path);
    for (char *at = strchr(path + strlen(root) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(path, 0700);
        *at = '/';
    }
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(file->text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* The rooms of a machine of these files; -1: not known. In kB. */
static void expect(const struct file *files, long long free_kb, long long total_kb)
{
    char root[] = "/tmp/machine_memory_test.XXXXXX", command[PATH_MAX];
    size_t free_bytes, total_bytes;
    assert_non_null(mkdtemp(root));
    for (int i = 0; i < FILES_MAX && files[i].path; i++)
        write_file(root, &files[i]);
    bool is_known = machine_memory_at(root, &free_bytes, &total_bytes);
    snprintf(command, sizeof(command), "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
    assert_int_equal(is_known, free_kb >= 0);
    assert_int_equal(free_bytes, is_known ? free_kb * 1024 : 0);
    assert_int_equal(total_bytes, is_known ? total_kb * 1024 : 0);
}

static void test_a_machine(void **state)
{
    (void)state;
    expect((struct file[FILES_MAX]){MEMINFO}, 600000, 1000000);
    expect((struct file[FILES_MAX]){{"/proc/meminfo", "MemTotal: 1000000 kB\n"}}, -1, 0);
    expect((struct file[FILES_MAX]){{"/proc/other", ""}}, -1, 0);
}

static void test_a_container(void **state)
{
    (void)state;
    struct file files[FILES_MAX] = {
        MEMINFO,
        {"/proc/self/cgroup", "0::/\n"},
        {"/sys/fs/cgroup/memory.max", "409600000\n"},     /* 400000 kB */
        {"/sys/fs/cgroup/memory.current", "204800000\n"}, /* 200000 kB */
        {"/sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 51200000\nactive_file 7\n"}};
    expect(files, 250000, 400000);
    files[2].text = "max\n";
    expect(files, 600000, 1000000);
    files[2].text = "102400000\n"; /* it uses more than it may: being cut back */
    expect(files, 0, 100000);
}

static void test_a_group_above(void **state)
{
    (void)state;
    struct file files[FILES_MAX] = {MEMINFO,
                                    {"/proc/self/cgroup", "1:name=systemd:/x\n0::/a/b\n"},
                                    {"/sys/fs/cgroup/a/memory.max", "204800000\n"},
                                    {"/sys/fs/cgroup/a/memory.current", "0\n"},
                                    {"/sys/fs/cgroup/a/b/memory.max", "max\n"},
                                    {"/sys/fs/cgroup/a/b/memory.current", "0\n"}};
    expect(files, 200000, 200000);
    files[4].text = "102400000\n";
    expect(files, 100000, 100000);
}

static void test_the_older_version(void **state)
{
    (void)state;
    struct file files[FILES_MAX] = {
        MEMINFO,
        {"/proc/self/cgroup", "9:cpu:/c\n4:memory:/docker/1\n0::/\n"},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "307200000\n"},
        {"/sys/fs/cgroup/memory/memory.usage_in_bytes", "102400000\n"},
        {"/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 0\n"}};
    expect(files, 200000, 300000);
    files[2].text = "9223372036854771712\n"; /* none */
    expect(files, 600000, 1000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_machine),
        cmocka_unit_test(test_a_container),
        cmocka_unit_test(test_a_group_above),
        cmocka_unit_test(test_the_older_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
