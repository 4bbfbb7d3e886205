/*
 * inspect_device.c - `mgpt inspect device`: what this machine could run stages on. Asked of the
 * worker program, since this one holds no kernels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/commands.h"
#include "daemon/cli/session.h"
#include "daemon/cli/settings.h"
#include "daemon/worker_process.h"

enum { ANSWER_BYTES_MAX = 1 << 20, ARGUMENTS_MAX = 6 };

/* Of the arguments of mgpt-worker --devices; NULL: everything. */
static enum status add_device(const char *arguments[ARGUMENTS_MAX], const char *device,
                              struct error *err)
{
    const char *prefix = "cuda:", *number = device ? device + strlen(prefix) : NULL;
    if (!device)
        return STATUS_OK;
    bool is_cpu = strcmp(device, "cpu") == 0, is_cuda = strcmp(device, "cuda") == 0;
    arguments[2] = is_cpu ? "--no-cuda" : "--no-cpu";
    if (is_cpu || is_cuda)
        return STATUS_OK;
    if (strncmp(device, prefix, strlen(prefix)) != 0 || !*number || strlen(number) > 4 ||
        strspn(number, "0123456789") != strlen(number))
        return error_set(err, STATUS_INVALID, "--device %s: expected cpu, cuda or cuda:K", device);
    arguments[3] = "--index";
    arguments[4] = number;
    return STATUS_OK;
}

/* A device that was asked for by name and is of no use is a failure. */
static enum status check_wanted(const json_t *answer, const char *device, struct error *err)
{
    const json_t *cuda = json_object_get(answer, "cuda"), *cpu = json_object_get(answer, "cpu");
    const json_t *first = json_array_get(json_object_get(cuda, "devices"), 0);
    const json_t *const places[] = {cuda, cpu, strncmp(device, "cuda:", 5) == 0 ? first : NULL};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *text = json_string_value(json_object_get(places[i], "error"));
        if (text)
            return error_set(err, STATUS_NOT_FOUND, "%s", text);
    }
    return STATUS_OK;
}

static enum status inspect(const struct settings *settings, struct error *err)
{
    const char *arguments[ARGUMENTS_MAX] = {"mgpt-worker", "--devices"};
    enum status st = add_device(arguments, settings->device, err);
    if (st != STATUS_OK)
        return st;
    char *text = malloc(ANSWER_BYTES_MAX);
    if (!text)
        return error_set(err, STATUS_NOMEM, "cannot allocate %d bytes", ANSWER_BYTES_MAX);
    st = worker_process_ask(text, ANSWER_BYTES_MAX, arguments, err);
    json_t *answer = st == STATUS_OK ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    free(text);
    if (st == STATUS_OK && !answer)
        st = error_set(err, STATUS_INTERNAL, "mgpt-worker --devices gives no JSON");
    if (st == STATUS_OK && settings->device)
        st = check_wanted(answer, settings->device, err);
    if (st == STATUS_OK)
        return session_print_json(answer, err);
    json_decref(answer);
    return st;
}

int command_inspect_device(int argc, char **argv)
{
    static const struct option table[] = {
        {"device", "NAME", OPTION_TEXT, SETTING(device),
         .help = "cpu, cuda or cuda:K alone; exit 1 when it is of no use [all there is]"},
        {0}};
    static const struct option_set set = {
        .program = "mgpt inspect device",
        .about =
            "What this machine could run stages on: {\"cpu\": {cpus, memory_bytes, paths, path}, "
            "\"cuda\": {driver, runtime, cublaslt, nccl, devices: [{index, name, path, "
            "memory_bytes, free_bytes, processors}], error}}.",
        .options = table,
        .example = "mgpt inspect device --device cuda"};
    struct settings settings;
    struct error err;
    int outcome = settings_start(&settings, &set, argc, argv);
    if (outcome >= 0)
        return outcome;
    if (inspect(&settings, &err) == STATUS_OK)
        return 0;
    fprintf(stderr, "mgpt: %s\n", err.text);
    return err.code == STATUS_INVALID ? 2 : 1;
}
