/*
 * bench_machine.c - what the load runs on, and what that can do at best (by mgpt-worker --measure,
 * since this program holds no kernels).
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "daemon/cli/bench.h"
#include "daemon/worker_process.h"

enum { ANSWER_BYTES_MAX = 1 << 16 };

static void read_cpu_name(char out[BENCH_TEXT_BYTES])
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "re");
    snprintf(out, BENCH_TEXT_BYTES, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, BENCH_TEXT_BYTES, "%.*s", BENCH_TEXT_BYTES - 1, colon + 2);
        break;
    }
    if (file)
        fclose(file);
}

void bench_machine_describe(struct bench_machine *out)
{
    struct utsname names;
    cpu_set_t cpus;
    memset(out, 0, sizeof(*out));
    read_cpu_name(out->cpu);
    if (uname(&names) == 0)
        snprintf(out->kernel, sizeof(out->kernel), "%.30s %.60s %.30s", names.sysname,
                 names.release, names.machine);
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
        out->n_cpus = CPU_COUNT(&cpus);
    out->memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

static double larger(double a, double b)
{
    return a > b ? a : b;
}

/* Of n_measured values, with one more. */
static void add_to_mean(double *mean, double value, int n_measured)
{
    *mean += (value - *mean) / (n_measured + 1);
}

static enum status read_limits(struct bench_machine *machine, const json_t *answer,
                               struct error *err)
{
    const char *path = json_string_value(json_object_get(answer, "code_path"));
    const json_t *limits = json_object_get(answer, "limits"), *item;
    size_t i;
    if (!path || !json_is_array(limits))
        return error_set(err, STATUS_INTERNAL, "mgpt-worker --measure gives no limits");
    snprintf(machine->code_path, sizeof(machine->code_path), "%.*s", BENCH_TEXT_BYTES - 1, path);
    machine->n_limits = 0;
    json_array_foreach(limits, i, item)
    {
        if (i == BENCH_THREAD_LIMITS_MAX)
            break;
        struct bench_limit *limit = &machine->limits[i];
        limit->threads = (int)json_integer_value(json_object_get(item, "threads"));
        limit->read_bytes_s =
            larger(limit->read_bytes_s, json_number_value(json_object_get(item, "read_bytes_s")));
        limit->dense_flop_s =
            larger(limit->dense_flop_s, json_number_value(json_object_get(item, "dense_flop_s")));
        if (i > 0) { /* more threads can do no less: the machine was busy then */
            limit->read_bytes_s = larger(limit->read_bytes_s, limit[-1].read_bytes_s);
            limit->dense_flop_s = larger(limit->dense_flop_s, limit[-1].dense_flop_s);
        }
        add_to_mean(&limit->read_mean_bytes_s,
                    json_number_value(json_object_get(item, "read_mean_bytes_s")),
                    machine->n_measured);
        add_to_mean(&limit->dense_mean_flop_s,
                    json_number_value(json_object_get(item, "dense_mean_flop_s")),
                    machine->n_measured);
        machine->n_limits++;
    }
    machine->n_measured++;
    return STATUS_OK;
}

enum status bench_machine_measure(struct bench_machine *machine, struct error *err)
{
    char *text = malloc(ANSWER_BYTES_MAX);
    if (!text)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d bytes", ANSWER_BYTES_MAX);
    static const char *const arguments[] = {"mgpt-worker", "--measure", NULL};
    enum status st = worker_process_ask(text, ANSWER_BYTES_MAX, arguments, err);
    json_t *answer = st == STATUS_OK ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    free(text);
    if (st == STATUS_OK)
        st = read_limits(machine, answer, err);
    json_decref(answer);
    return st;
}

const struct bench_limit *bench_machine_best(const struct bench_machine *machine)
{
    return machine->n_limits > 0 ? &machine->limits[machine->n_limits - 1] : NULL;
}
