/*
 * devices.c - asks the kernels' own questions, one after the other.
 */
#include "worker/devices.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/options.h"
#include "kernels/device.h"
#include "worker/communicator.h"
#include "worker/cpu_list.h"

enum { VERSION_BYTES = 48 };

static json_t *describe_cpu(void)
{
    struct error err;
    enum code_path chosen;
    json_t *paths = json_array();
    for (int path = CODE_PATH_COUNT - 1; path >= 0; path--)
        if (code_path_available((enum code_path)path))
            json_array_append_new(paths, json_string(code_path_name((enum code_path)path)));
    double memory_bytes = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    json_t *cpu = json_pack("{s:i, s:I, s:o}", "cpus", cpu_list_n_allowed(), "memory_bytes",
                            (json_int_t)memory_bytes, "paths", paths);
    if (code_path_pick(&chosen, &err) == STATUS_OK)
        json_object_set_new(cpu, "path", json_string(code_path_name(chosen)));
    else
        json_object_set_new(cpu, "error", json_string(err.text));
    return cpu;
}

static json_t *describe_device(int index)
{
    struct device_facts facts;
    struct error err;
    if (cuda_device_describe(&facts, index, &err) != STATUS_OK)
        return json_pack("{s:i, s:s}", "index", index, "error", err.text);
    return json_pack("{s:i, s:s, s:s, s:I, s:I, s:i}", "index", index, "name", facts.name, "path",
                     facts.path, "memory_bytes", (json_int_t)facts.memory_bytes, "free_bytes",
                     (json_int_t)facts.free_bytes, "processors", facts.n_processors);
}

/* major * 1000 + minor * 10, as CUDA itself counts. */
static json_t *cuda_version(int version)
{
    char text[VERSION_BYTES];
    snprintf(text, sizeof(text), "%d.%d", version / 1000, version % 1000 / 10);
    return version > 0 ? json_string(text) : json_null();
}

/* major * 10000 + minor * 100 + patch, as its libraries count. */
static json_t *library_version(unsigned long version)
{
    char text[VERSION_BYTES];
    snprintf(text, sizeof(text), "%lu.%lu.%lu", version / 10000, version / 100 % 100,
             version % 100);
    return version > 0 ? json_string(text) : json_null();
}

/* wanted: one device, or -1 for all. */
static json_t *describe_cuda(int wanted)
{
    struct device_versions versions;
    struct error err;
    int n = 0;
    json_t *cuda = json_object(), *devices = json_array();
    enum status st = cuda_device_versions(&versions, &err);
    if (st == STATUS_OK) {
        json_object_set_new(cuda, "driver", cuda_version(versions.driver));
        json_object_set_new(cuda, "runtime", cuda_version(versions.runtime));
        json_object_set_new(cuda, "cublaslt", library_version(versions.blas));
        json_object_set_new(cuda, "nccl", library_version(communicator_version(NULL)));
        st = cuda_device_count(&n, &err);
    }
    if (st != STATUS_OK)
        json_object_set_new(cuda, "error", json_string(err.text));
    for (int i = wanted >= 0 ? wanted : 0; st == STATUS_OK && i < (wanted >= 0 ? wanted + 1 : n);
         i++)
        json_array_append_new(devices, describe_device(i));
    json_object_set_new(cuda, "devices", devices);
    return cuda;
}

struct devices {
    int wanted;
    bool no_cpu, no_cuda;
};

int devices_main(int argc, char **argv)
{
    static const struct option table[] = {
        {"index", "K", OPTION_INT, offsetof(struct devices, wanted), .default_value = "-1",
         .min = -1, .max = 9999, .help = "this CUDA device alone, -1: all"},
        {"no-cpu", NULL, OPTION_FLAG, offsetof(struct devices, no_cpu), .help = "CUDA alone"},
        {"no-cuda", NULL, OPTION_FLAG, offsetof(struct devices, no_cuda), .help = "the CPU alone"},
        {0}};
    static const struct option_set set = {.program = "mgpt-worker --devices",
                                          .about =
                                              "What this machine could run stages on, as JSON.",
                                          .options = table,
                                          .example = "mgpt-worker --devices"};
    struct devices devices = {0};
    int outcome = options_start(&set, &devices, argc, argv);
    if (outcome >= 0)
        return outcome;
    json_t *answer = json_object();
    if (!devices.no_cpu)
        json_object_set_new(answer, "cpu", describe_cpu());
    if (!devices.no_cuda)
        json_object_set_new(answer, "cuda", describe_cuda(devices.wanted));
    int failed = json_dumpf(answer, stdout, 0) != 0 || fputc('\n', stdout) == EOF;
    json_decref(answer);
    return failed || fflush(stdout) != 0;
}
