/*
 * main.c - mgptd: options, signals, confinement, the model, the engine, the HTTP server; in that
 * order, and back.
 *
 * On stdout one line of JSON when every worker is loaded; everything else goes to stderr.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/log.h"
#include "daemon/config_file.h"
#include "daemon/engine.h"
#include "daemon/http_server.h"
#include "model/utf8.h"

enum { READY_LOOK_MS = 100 };

struct settings {
    const char *config, *model, *vq, *cut, *device, *http, *model_name, *api_key;
    const char *remote_stages, *worker_listen, *worker_key, *link_host;
    int compute, link, n_stages, n_pipelines, kv_blocks, prefill_chunk, threads, queue_max,
        log_level;
    int stop_wait_s, step_wait_s, load_wait_s, stall_limit_s, request_wait_s;
    struct option_size picture_max;
    bool no_confine;
};

#define SETTING(field) offsetof(struct settings, field)

static const char *const computes[] = {[ENGINE_F32] = "f32", [ENGINE_BF16] = "bf16", NULL};
static const char *const links[] = {
    [ENGINE_LINK_AUTO] = "auto", [ENGINE_LINK_ZMQ] = "zmq", [ENGINE_LINK_NCCL] = "nccl", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug",
                                     NULL}; /* as enum log_level */

static const struct option table[] = {
    {"model", "DIR", OPTION_TEXT, SETTING(model), .required = true, .help = "checkpoint folder",
     .heading = "Model"},
    {"vq", "DIR", OPTION_TEXT, SETTING(vq),
     .help = "folder of vqgan.yaml and vqgan.ckpt [MODEL/tokenizer]"},
    {"model-name", "NAME", OPTION_TEXT, SETTING(model_name),
     .help = "as clients call it [the folder's name]"},
    {"compute", "TYPE", OPTION_CHOICE, SETTING(compute), .choices = computes,
     .default_value = "bf16", .help = "number format"},
    {"stages", "N", OPTION_INT, SETTING(n_stages), .default_value = "1", .min = 1,
     .max = ENGINE_STAGES_MAX, .help = "processes the layers are cut into, at most 2 layers + 2",
     .heading = "Workers"},
    {"cut", "UNITS,UNITS..", OPTION_TEXT, SETTING(cut),
     .help = "the stages by hand, as in 0-8,9-17 or, with half a layer, 0-8a,8f-17 [even in time]"},
    {"pipelines", "N", OPTION_INT, SETTING(n_pipelines), .default_value = "1", .min = 1,
     .max = ENGINE_PIPELINES_MAX, .help = "whole models side by side, each of --stages processes"},
    {"device", "NAME", OPTION_TEXT, SETTING(device), .default_value = "cpu",
     .help = "cpu, cuda (stage k on device k) or cuda:K"},
    {"link", "KIND", OPTION_CHOICE, SETTING(link), .choices = links, .default_value = "auto",
     .help = "between stages; auto: NCCL between CUDA devices where it is there, else ZeroMQ"},
    {"threads", "N", OPTION_INT, SETTING(threads), .max = 1024,
     .help = "of each worker [its share of the cores]"},
    {"kv-blocks", "N", OPTION_INT, SETTING(kv_blocks), .max = 1 << 22,
     .help = "blocks of 64 positions in each stage [on devices what they have left, for up to 32 "
             "(stages + 1) of the largest pictures; else 8 (stages + 1) of them]"},
    {"picture-max", "WxH", OPTION_SIZE, SETTING(picture_max),
     .help = "largest picture, by its number of pixels; a device keeps the memory for one [what "
             "the model's positions allow, at most 2048x2048]"},
    {"prefill-chunk", "N", OPTION_INT, SETTING(prefill_chunk), .max = 65536,
     .help = "prompt tokens of a step [the scheduler decides]"},
    {"remote-stages", "LIST", OPTION_TEXT, SETTING(remote_stages),
     .help =
         "stages that are filled by mgpt-worker --connect of other machines, like 1, 0-2,5, all, "
         "or 1.0-1.3 of pipeline 1 [none]",
     .heading = "Workers on other machines"},
    {"worker-listen", "HOST:PORT", OPTION_TEXT, SETTING(worker_listen),
     .help = "where they come: an address of this machine or *"},
    {"worker-key", "FILE", OPTION_TEXT, SETTING(worker_key),
     .help = "this daemon's CURVE keys and those of the workers that it lets in, as mgpt make-keys "
             "writes them"},
    {"link-host", "HOST", OPTION_TEXT, SETTING(link_host),
     .help = "where other machines reach a stage that runs here [HOST of --worker-listen]"},
    {"http", "HOST:PORT", OPTION_TEXT, SETTING(http), .default_value = "127.0.0.1:8086",
     .help = "where clients come; port 0: any free one", .heading = "Service"},
    {"api-key", "FILE", OPTION_TEXT, SETTING(api_key),
     .help = "what clients must send as 'Authorization: Bearer KEY'; needed when --http is not on "
             "this machine's loopback"},
    {"queue-max", "N", OPTION_INT, SETTING(queue_max), .default_value = "256", .min = 1,
     .max = 4096, .help = "pictures running and waiting; more get 429"},
    {"config", "FILE.yaml", OPTION_TEXT, SETTING(config),
     .help = "these options as 'name: value'; the command line wins"},
    {"log-level", "LEVEL", OPTION_CHOICE, SETTING(log_level), .choices = levels,
     .default_value = "info", .help = "of this program and its workers"},
    {"stop-wait-s", "S", OPTION_INT, SETTING(stop_wait_s), .default_value = "600", .min = 0,
     .max = 86400, .help = "after SIGTERM, for running pictures; then they fail",
     .heading = "Limits of time"},
    {"step-wait-s", "S", OPTION_INT, SETTING(step_wait_s), .default_value = "120", .min = 1,
     .max = 86400, .help = "for one step of all stages; then a worker is lost"},
    {"load-wait-s", "S", OPTION_INT, SETTING(load_wait_s), .default_value = "600", .min = 1,
     .max = 86400, .help = "for a worker to load its weights"},
    {"request-wait-s", "S", OPTION_INT, SETTING(request_wait_s), .default_value = "120", .min = 1,
     .max = 86400, .help = "for a client's request to arrive whole; then its connection ends"},
    {"stall-limit-s", "S", OPTION_INT, SETTING(stall_limit_s), .default_value = "120", .min = 1,
     .max = 86400, .help = "/health is 503 when work runs and no token came for so long"},
    {"no-confine", NULL, OPTION_FLAG, SETTING(no_confine), .heading = "Other",
     .help = "keep the system calls and capabilities that serving never needs, here and in "
             "workers"},
    {0}};

static const struct option_set options = {
    .program = "mgptd",
    .about = "Serves a Lumina-mGPT checkpoint over HTTP with stage workers of its own.",
    .options = table,
    .example = "mgptd --model ./7b --stages 2"};

struct service {
    struct served_model *model;
    struct engine *engine;
    struct http_server *http;
    struct http_key key;
};

/* More than an int holds is refused like anything that is too much. */
static int pixels_of(const struct option_size *size)
{
    int64_t pixels = (int64_t)size->width * size->height;
    return pixels < INT_MAX ? (int)pixels : INT_MAX;
}

static enum status start_engine(struct service *service, const struct settings *settings,
                                struct error *err)
{
    struct engine_options engine = {.model = service->model,
                                    .vq_dir = settings->vq,
                                    .device = settings->device,
                                    .log_level = levels[settings->log_level],
                                    .compute = (enum engine_compute)settings->compute,
                                    .link = (enum engine_link)settings->link,
                                    .n_pipelines = settings->n_pipelines,
                                    .n_stages = settings->n_stages,
                                    .cut = settings->cut,
                                    .codec = true,
                                    .no_confine = settings->no_confine,
                                    .kv_blocks = settings->kv_blocks,
                                    .picture_pixels = pixels_of(&settings->picture_max),
                                    .prefill_rows = settings->prefill_chunk,
                                    .threads = settings->threads,
                                    .queue_max = settings->queue_max,
                                    .remote_stages = settings->remote_stages,
                                    .worker_listen = settings->worker_listen,
                                    .worker_key = settings->worker_key,
                                    .link_host = settings->link_host,
                                    .step_wait_ms = settings->step_wait_s * 1000,
                                    .load_wait_ms = settings->load_wait_s * 1000};
    return engine_create(&service->engine, &engine, err);
}

static enum status start_http(struct service *service, const struct settings *settings,
                              struct error *err)
{
    const char *name = settings->model_name;
    if (name && (!*name || utf8_find_invalid(name, strlen(name)) < strlen(name)))
        return error_set(err, STATUS_INVALID, "--model-name is '%s', expected a name in UTF-8",
                         name);
    struct http_options http = {.address = settings->http,
                                .engine = service->engine,
                                .model = service->model,
                                .model_name = settings->model_name ? settings->model_name
                                                                   : service->model->name,
                                .key = settings->api_key ? &service->key : NULL,
                                .request_wait_s = settings->request_wait_s,
                                .stall_limit_s = settings->stall_limit_s};
    enum status st = http_server_start(&service->http, &http, err);
    if (st == STATUS_OK)
        log_info("mgptd", "listening url=%s", http_server_url(service->http));
    return st;
}

/* SIGTERM and SIGINT are blocked in every thread and taken here. */
static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

static bool is_told_to_stop(const sigset_t *set, int wait_ms)
{
    struct timespec wait = {wait_ms / 1000, (long)(wait_ms % 1000) * 1000000};
    return sigtimedwait(set, NULL, &wait) > 0;
}

static void end_at_once(int number)
{
    (void)number;
    _exit(1); /* the kernel ends the workers with us */
}

/* Whoever asks a second time does not want to wait for running pictures. */
static void let_second_signal_end(const sigset_t *set)
{
    struct sigaction action = {.sa_handler = end_at_once};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    pthread_sigmask(SIG_UNBLOCK, set, NULL);
}

/* *stop: a signal came before the workers were loaded. */
static enum status wait_ready(struct service *service, const sigset_t *set, bool *stop,
                              struct error *err)
{
    enum status st = STATUS_TIMEOUT;
    while (st == STATUS_TIMEOUT && !*stop) {
        st = engine_wait_ready(service->engine, READY_LOOK_MS, err);
        *stop = is_told_to_stop(set, 0);
    }
    return *stop ? STATUS_OK : st;
}

static void tell_ready(const struct service *service, const struct settings *settings)
{
    printf("{\"http\": \"%s\", \"pid\": %d, \"stages\": %d, \"pipelines\": %d}\n",
           http_server_url(service->http), (int)getpid(), engine_n_stages(service->engine),
           settings->n_pipelines);
    fflush(stdout);
    log_info("mgptd", "ready url=%s", http_server_url(service->http));
}

static void stop(struct service *service, int wait_s)
{
    if (service->http)
        http_server_quiesce(service->http);
    if (service->engine)
        engine_stop(service->engine, wait_s * 1000);
    http_server_stop(service->http);
    engine_destroy(service->engine);
    served_model_close(service->model);
}

/* Before threads are started. A system without seccomp is no reason not to serve. */
static enum status confine(const struct settings *settings, struct error *err)
{
    if (settings->no_confine)
        return STATUS_OK;
    enum status st = confine_process(CONFINE_PARENT, err);
    if (st != STATUS_UNSUPPORTED)
        return st;
    log_info("mgptd", "not confined reason=\"%s\"", err->text);
    return STATUS_OK;
}

static enum status serve(struct service *service, const struct settings *settings,
                         const sigset_t *set, struct error *err)
{
    bool told = false;
    enum status st = confine(settings, err);
    if (st == STATUS_OK && settings->api_key)
        st = http_key_load(&service->key, settings->api_key, err);
    if (st == STATUS_OK)
        st = served_model_open(&service->model, settings->model, SERVED_ALL, err);
    if (st == STATUS_OK)
        st = start_engine(service, settings, err);
    if (st == STATUS_OK)
        st = start_http(service, settings, err);
    if (st == STATUS_OK)
        st = wait_ready(service, set, &told, err);
    if (st != STATUS_OK || told)
        return st;
    tell_ready(service, settings);
    while (!is_told_to_stop(set, 60 * 1000))
        continue;
    log_info("mgptd", "stopping wait_s=%d", settings->stop_wait_s);
    return STATUS_OK;
}

int main(int argc, char **argv)
{
    struct settings settings = {0};
    struct config_file config;
    struct service service = {0};
    struct error err;
    sigset_t signals;
    int outcome = config_file_start(&config, &options, &settings, sizeof(settings),
                                    &settings.config, argc - 1, argv + 1);
    if (outcome >= 0)
        return outcome;
    log_set_level((enum log_level)settings.log_level);
    block_signals(&signals);
    enum status st = serve(&service, &settings, &signals, &err);
    if (st != STATUS_OK)
        fprintf(stderr, "mgptd: %s\n", err.text);
    let_second_signal_end(&signals);
    stop(&service, st == STATUS_OK ? settings.stop_wait_s : 0);
    config_file_fini(&config);
    return st == STATUS_OK ? 0 : 1;
}
