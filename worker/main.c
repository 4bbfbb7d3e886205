/*
 * main.c - mgpt-worker: options, signals, the device's stream, then control_run().
 *
 * SIGTERM ends the process at once with exit 0: a worker holds nothing that is worth a goodbye.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/log.h"
#include "base/options.h"
#include "worker/control.h"
#include "worker/cpu_list.h"
#include "worker/devices.h"
#include "worker/measure.h"

struct settings {
    const char *connect, *key, *link;
    const char *model, *vq;
    int role, level;
    const char *device, *cpus;
    int n_threads, silence_ms;
    bool no_confine, shares_device;
};

enum { ROLE_STAGE, ROLE_CODEC };
static const char *const roles[] = {"stage", "codec", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug",
                                     NULL}; /* as enum log_level */

static const struct option table[] = {
    {"connect", "ENDPOINT", OPTION_TEXT, offsetof(struct settings, connect), .required = true,
     .heading = "Link",
     .help =
         "--worker-listen of an mgptd, tcp://host:port; tried until it is there, and again when "
         "it was lost"},
    {"key", "FILE", OPTION_TEXT, offsetof(struct settings, key),
     .help =
         "CURVE keys as mgpt make-keys writes them; needed when ENDPOINT is not on this machine"},
    {"link", "ENDPOINT", OPTION_TEXT, offsetof(struct settings, link),
     .help = "where the stage before reaches this one, tcp://this-host:* [the address from which "
             "this machine reaches mgptd, any free port]"},
    {"silence-ms", "N", OPTION_INT, offsetof(struct settings, silence_ms), .default_value = "30000",
     .min = 1000, .max = 3600000, .help = "a controller that is silent for longer is lost"},
    {"role", "ROLE", OPTION_CHOICE, offsetof(struct settings, role), .default_value = "stage",
     .choices = roles, .heading = "Model and device",
     .help = "layers of the transformer, or pictures to codes and back"},
    {"model", "DIR", OPTION_TEXT, offsetof(struct settings, model), .required = true,
     .help = "checkpoint folder"},
    {"vq", "DIR", OPTION_TEXT, offsetof(struct settings, vq),
     .help = "folder of vqgan.yaml and vqgan.ckpt [tokenizer/ in the checkpoint folder]"},
    {"device", "DEVICE", OPTION_TEXT, offsetof(struct settings, device), .default_value = "cpu",
     .help = "cpu, cuda or cuda:K"},
    {"shares-device", NULL, OPTION_FLAG, offsetof(struct settings, shares_device),
     .help = "another stage of the pipeline has the same device: NCCL is told to take them for two "
             "hosts (NCCL_HOSTID)"},
    {"threads", "N", OPTION_INT, offsetof(struct settings, n_threads), .default_value = "0",
     .min = 0, .max = STREAM_THREADS_MAX,
     .help = "threads of the kernels, 0: one for each CPU that may be used"},
    {"cpus", "LIST", OPTION_TEXT, offsetof(struct settings, cpus),
     .help = "pin the threads to CPUs, like 0-3,8"},
    {"log-level", "LEVEL", OPTION_CHOICE, offsetof(struct settings, level), .default_value = "info",
     .choices = levels, .heading = "Other", .help = "lines on stderr"},
    {"no-confine", NULL, OPTION_FLAG, offsetof(struct settings, no_confine),
     .help = "keep the system calls and capabilities that a worker never needs"},
    {0}};

static const struct option_set options = {
    .program = "mgpt-worker",
    .about =
        "One process, one device: runs one stage of a model, or its picture codec, for an mgptd. "
        "With --measure as the first option: measures the machine instead; with --devices: lists "
        "what it could run on (each has --help).",
    .options = table,
    .example = "mgpt-worker --connect tcp://gpu-host:9300 --key worker.key --model ./7b"};

/* Not started by its controller, which lives on: a worker that comes back when that is lost. */
static bool is_far(const struct settings *settings)
{
    return strncmp(settings->connect, "tcp://", strlen("tcp://")) == 0;
}

static void end_at_once(int number)
{
    (void)number;
    _exit(0);
}

/* An interrupt that the parent has set to be ignored stays ignored: mgptd stops its workers itself.
 */
static void set_signals(void)
{
    struct sigaction end = {.sa_handler = end_at_once}, ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    if (sigaction(SIGINT, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(SIGINT, &end, NULL);
}

/* "cpu", "cuda" (the first one), "cuda:K". */
static enum status parse_device(struct stream_options *out, const char *device, struct error *err)
{
    const char *prefix = "cuda:", *number = device + strlen(prefix);
    out->device = DEVICE_CUDA;
    out->device_index = 0;
    if (strcmp(device, "cpu") == 0)
        out->device = DEVICE_CPU;
    if (strcmp(device, "cpu") == 0 || strcmp(device, "cuda") == 0)
        return STATUS_OK;
    if (strncmp(device, prefix, strlen(prefix)) == 0 && *number >= '0' && *number <= '9' &&
        strspn(number, "0123456789") == strlen(number) && strlen(number) <= 4) {
        out->device_index = atoi(number);
        return STATUS_OK;
    }
    return error_set(err, STATUS_INVALID, "--device %s: expected cpu, cuda or cuda:K", device);
}

static enum status open_stream(struct stream **out, const struct settings *settings,
                               struct error *err)
{
    int cpus[CPU_LIST_MAX], n_cpus = 0;
    enum status st = STATUS_OK;
    if (settings->cpus)
        st = cpu_list_parse(cpus, &n_cpus, settings->cpus, err);
    if (st != STATUS_OK)
        return error_wrap(err, st, "--cpus");
    if (n_cpus > 0 && settings->n_threads > n_cpus)
        return error_set(err, STATUS_INVALID, "--threads %d on %d CPUs of --cpus",
                         settings->n_threads, n_cpus);
    int n_threads = settings->n_threads > 0 ? settings->n_threads
                    : n_cpus > 0            ? n_cpus
                                            : cpu_list_n_allowed();
    struct stream_options stream = {
        .n_threads = n_threads < STREAM_THREADS_MAX ? n_threads : STREAM_THREADS_MAX,
        .cpus = n_cpus > 0 ? cpus : NULL};
    st = parse_device(&stream, settings->device, err);
    /* A codec takes what stages leave; the threads beside a device do not wait for each other. */
    stream.own_cpus = settings->role == ROLE_STAGE && stream.device == DEVICE_CPU;
    return st == STATUS_OK ? stream_create(out, &stream, err) : st;
}

/* Before threads are started. A system without seccomp is no reason not to serve. */
static enum status confine(const struct settings *settings, struct error *err)
{
    if (settings->no_confine)
        return STATUS_OK;
    enum status st = confine_process(CONFINE_LEAF, err);
    if (st != STATUS_UNSUPPORTED)
        return st;
    log_info("worker", "not confined reason=\"%s\"", err->text);
    return STATUS_OK;
}

/*
 * What CUDA and NCCL read of the environment, before either is asked for anything. Kernels are
 * loaded at once: the first use of one must not wait for a transfer that is under way. NCCL refuses
 * two ranks on one device of a host.
 */
static void set_environment(const struct settings *settings)
{
    char host[HOST_NAME_MAX + 1] = "", id[HOST_NAME_MAX + 32];
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
    gethostname(host, sizeof(host) - 1);
    snprintf(id, sizeof(id), "%s-%d", host, (int)getpid());
    if (settings->shares_device)
        setenv("NCCL_HOSTID", id, 1);
}

/* is_told: the controller knows the reason already. */
static enum status run(const struct settings *settings, bool *is_told, struct error *err)
{
    struct curve_keys keys;
    struct stream *stream = NULL;
    char vq_dir[PATH_MAX];
    set_environment(settings);
    enum status st = confine(settings, err);
    if (st == STATUS_OK && settings->key)
        st = curve_load_file(&keys, NULL, settings->key, err);
    if (st != STATUS_OK)
        return st;
    snprintf(vq_dir, sizeof(vq_dir), "%s/tokenizer", settings->model);
    struct control_options control = {
        .endpoint = settings->connect,
        .keys = settings->key ? &keys : NULL,
        .role = settings->role == ROLE_CODEC ? MGPT__ROLE__ROLE_CODEC : MGPT__ROLE__ROLE_STAGE,
        .model_dir = settings->model,
        .vq_dir = settings->vq ? settings->vq : vq_dir,
        .link_bind = settings->link,
        /* with its number, since stages on one device are counted together */
        .device = strcmp(settings->device, "cuda") == 0 ? "cuda:0" : settings->device,
        .silence_ms = settings->silence_ms,
        .comes_back = is_far(settings)};
    struct error why;
    st = open_stream(&stream, settings, &why);
    if (st != STATUS_OK && control.comes_back) {
        *err = why;
        return st; /* whoever started it looks here */
    }
    if (st != STATUS_OK) {
        st = control_refuse(&control, &why, err);
        *is_told = st == why.code;
        return st;
    }
    control.stream = stream;
    st = control_run(&control, err);
    stream_destroy(stream);
    return st;
}

int main(int argc, char **argv)
{
    struct settings settings = {0};
    if (argc > 1 && strcmp(argv[1], "--measure") == 0)
        return measure_main(argc - 2, argv + 2);
    if (argc > 1 && strcmp(argv[1], "--devices") == 0)
        return devices_main(argc - 2, argv + 2);
    int exit_code = options_start(&options, &settings, argc - 1, argv + 1);
    if (exit_code >= 0)
        return exit_code;
    log_set_level((enum log_level)settings.level);
    set_signals();
    struct error err;
    bool is_told = false;
    enum status st = run(&settings, &is_told, &err);
    if (st != STATUS_OK) /* a worker that mgptd started has nobody else to tell */
        log_line(is_told ? LOG_INFO : LOG_ERROR, "worker", "ends status=%s reason=\"%s\"",
                 status_name(st), err.text);
    return st == STATUS_OK ? 0 : 1;
}
