/*
 * http_metrics.c - /metrics: the engine's figures in Prometheus' text form, vLLM's suffixes under
 * mgpt:.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/http_internal.h"

struct page {
    FILE *out;
    const char *model; /* escaped */
    const struct served_model *served;
};

static void head(const struct page *page, const char *name, const char *type, const char *help)
{
    fprintf(page->out, "# HELP mgpt:%s %s\n# TYPE mgpt:%s %s\n", name, help, name, type);
}

static void gauge(const struct page *page, const char *name, const char *help, double value)
{
    head(page, name, "gauge", help);
    fprintf(page->out, "mgpt:%s{model_name=\"%s\"} %.9g\n", name, page->model, value);
}

static void counter(const struct page *page, const char *name, const char *help, double value)
{
    head(page, name, "counter", help);
    fprintf(page->out, "mgpt:%s{model_name=\"%s\"} %.17g\n", name, page->model, value);
}

static void put_histogram(const struct page *page, const char *name, const char *help,
                          const struct histogram *histogram)
{
    int n;
    const double *bounds = histogram_bounds(histogram->kind, &n);
    uint64_t sum = 0;
    head(page, name, "histogram", help);
    for (int i = 0; i < n; i++) {
        sum += histogram->counts[i];
        fprintf(page->out, "mgpt:%s_bucket{model_name=\"%s\",le=\"%g\"} %llu\n", name, page->model,
                bounds[i], (unsigned long long)sum);
    }
    fprintf(page->out, "mgpt:%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\n", name, page->model,
            (unsigned long long)histogram->n);
    fprintf(page->out, "mgpt:%s_sum{model_name=\"%s\"} %.9g\n", name, page->model, histogram->sum);
    fprintf(page->out, "mgpt:%s_count{model_name=\"%s\"} %llu\n", name, page->model,
            (unsigned long long)histogram->n);
}

static void requests(const struct page *page, const struct engine_stats *stats)
{
    gauge(page, "num_requests_running", "Requests in the stages.", stats->n_running);
    gauge(page, "num_requests_waiting", "Requests in the queue.", stats->n_waiting);
    gauge(page, "num_pictures_open", "Pictures to be encoded or decoded.", stats->n_codec_open);
    head(page, "request_success_total", "counter", "Requests that ended well.");
    fprintf(page->out,
            "mgpt:request_success_total{model_name=\"%s\",finished_reason=\"stop\"} %llu\n",
            page->model, (unsigned long long)stats->n_succeeded);
    counter(page, "requests_failed_total", "Requests that ended with an error.",
            (double)stats->n_failed);
    counter(page, "requests_canceled_total", "Requests taken back by their clients.",
            (double)stats->n_canceled);
    counter(page, "requests_refused_total", "Requests refused because the queue was full.",
            (double)stats->n_refused);
    counter(page, "num_preemptions_total", "Requests put back into the queue.",
            (double)stats->n_preempted);
    counter(page, "prompt_tokens_total", "Tokens of prompts.", (double)stats->prompt_tokens);
    counter(page, "generation_tokens_total", "Tokens generated.", (double)stats->generation_tokens);
    counter(page, "image_tokens_total", "Tokens generated in pictures of given size.",
            (double)stats->image_tokens);
}

/* What `mgpt bench` makes the limits of. */
static void model_facts(const struct page *page, const struct engine_stats *stats)
{
    const struct model_config *config = &page->served->config;
    const struct vocabulary *vocabulary = page->served->vocabulary;
    head(page, "model_config_info", "gauge", "Shape of the model.");
    fprintf(page->out,
            "mgpt:model_config_info{model_name=\"%s\",hidden=\"%d\",inter=\"%d\",layers=\"%d\","
            "heads=\"%d\",kv_heads=\"%d\",head_dim=\"%d\",vocab=\"%d\",code_rows=\"%d\","
            "item_bytes=\"%d\"} 1\n",
            page->model, config->hidden, config->inter, config->n_layers, config->n_heads,
            config->n_kv_heads, config->head_dim, config->vocab,
            vocabulary->code_id_max - vocabulary->code_id_min + 1, stats->item_bytes);
}

static void memory(const struct page *page, const struct engine_stats *stats)
{
    double share = stats->kv_blocks > 0 ? (double)stats->kv_blocks_used / stats->kv_blocks : 0;
    gauge(page, "kv_cache_usage_perc", "Share of the KV blocks that is in use, 0 to 1.", share);
    head(page, "cache_config_info", "gauge", "Facts of the KV cache.");
    fprintf(page->out,
            "mgpt:cache_config_info{model_name=\"%s\",block_size=\"%d\",num_gpu_blocks=\"%d\"} 1\n",
            page->model, PLAN_BLOCK_TOKENS, stats->kv_blocks);
    counter(page, "prefix_cache_queries_total", "Tokens of prompts that began to be fed.",
            (double)stats->prefix_queries);
    counter(page, "prefix_cache_hits_total",
            "Of these, tokens whose keys and values a running request had.",
            (double)stats->prefix_hits);
    gauge(page, "codec_weight_bytes", "Weights of the picture worker.",
          (double)stats->codec.weight_bytes);
    gauge(page, "codec_work_bytes",
          "Memory that the picture worker keeps for the largest picture; 0 on the CPU.",
          (double)stats->codec.work_bytes);
    gauge(page, "codec_device_bytes", "Device memory held by the picture worker.",
          (double)stats->codec.device_bytes);
}

static void steps(const struct page *page, const struct engine_stats *stats)
{
    counter(page, "steps_total", "Plans sent to the stages.", (double)stats->n_plans);
    counter(page, "rows_total", "Tokens that went through the stages, prompts included.",
            (double)stats->n_plan_rows);
    gauge(page, "steps_in_flight", "Plans sent and not answered.", stats->n_in_flight);
    gauge(page, "rows_per_read", "Tokens for each read of the weights, since the start.",
          stats->n_plans ? (double)stats->n_plan_rows / (double)stats->n_plans : 0);
    counter(page, "stage_useful_seconds_total", "Kernel time on committed tokens, of all stages.",
            (double)stats->useful_ns * 1e-9);
    counter(page, "active_seconds_total", "Time with work.", (double)stats->active_ns * 1e-9);
    gauge(page, "stage_busy_share",
          "Kernel time on committed tokens over stages and time with work.", stats->busy_share);
    counter(page, "worker_restarts_total", "Workers started again.",
            (double)stats->n_worker_restarts);
    gauge(page, "remote_workers", "Places for workers of other machines.", stats->n_remote);
    gauge(page, "remote_workers_missing", "Of these, the empty ones.", stats->n_remote_missing);
    gauge(page, "remote_workers_spare", "Workers of other machines that wait for a place.",
          stats->n_remote_spare);
    counter(page, "codec_busy_seconds_total", "Time of the picture worker in its kernels.",
            (double)stats->codec_busy_ns * 1e-9);
}

static void stage_counter(const struct page *page, const struct engine_stats *stats,
                          const char *name, const char *help,
                          double (*value)(const struct engine_stage_stats *stage), const char *type)
{
    head(page, name, type, help);
    for (int i = 0; i < stats->n_stages; i++)
        fprintf(page->out,
                "mgpt:%s{model_name=\"%s\",pipeline=\"%d\",stage=\"%d\",units=\"%s\"} %.17g\n",
                name, page->model, stats->stages[i].pipeline, stats->stages[i].stage,
                stats->stages[i].units, value(&stats->stages[i]));
}

static double busy_s(const struct engine_stage_stats *stage)
{
    return (double)stage->busy_ns * 1e-9;
}

static double wait_s(const struct engine_stage_stats *stage)
{
    return (double)stage->wait_ns * 1e-9;
}

static double link_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->link_bytes;
}

static double weight_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->weight_bytes;
}

static double kv_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->kv_bytes;
}

static double activation_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->activation_bytes;
}

static double workspace_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->workspace_bytes;
}

static double recording_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->recording_bytes;
}

static double device_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->device_bytes;
}

static double device_free_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->device_free_bytes;
}

static double device_total_bytes(const struct engine_stage_stats *stage)
{
    return (double)stage->device_total_bytes;
}

static double is_ready(const struct engine_stage_stats *stage)
{
    return stage->ready;
}

/* What the stages said when they were loaded; of a device with memory of its own, else 0, from the
 * fourth on. */
static void stage_memory(const struct page *page, const struct engine_stats *stats)
{
    static const struct {
        const char *name, *help;
        double (*value)(const struct engine_stage_stats *stage);
    } parts[] = {
        {"stage_weight_bytes", "Weights held.", weight_bytes},
        {"stage_kv_bytes", "Keys and values reserved.", kv_bytes},
        {"stage_activation_bytes", "Memory for the rows of a step.", activation_bytes},
        {"stage_workspace_bytes", "Device memory the kernels work in.", workspace_bytes},
        {"stage_recording_bytes",
         "Device memory that recordings of steps may take at most, beside what is held.",
         recording_bytes},
        {"stage_device_bytes", "Device memory held.", device_bytes},
        {"stage_device_free_bytes", "Device memory left for anybody, when the stage was loaded.",
         device_free_bytes},
        {"stage_device_total_bytes", "Memory of the device.", device_total_bytes},
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        stage_counter(page, stats, parts[i].name, parts[i].help, parts[i].value, "gauge");
}

static void stages(const struct page *page, const struct engine_stats *stats)
{
    stage_counter(page, stats, "stage_busy_seconds_total", "Time in kernels.", busy_s, "counter");
    stage_counter(page, stats, "stage_wait_seconds_total", "Time of waiting for activations.",
                  wait_s, "counter");
    stage_counter(page, stats, "stage_link_bytes_total", "Bytes sent to the next stage.",
                  link_bytes, "counter");
    stage_memory(page, stats);
    stage_counter(page, stats, "stage_ready", "1 when the stage is loaded.", is_ready, "gauge");
}

static void histograms(const struct page *page, const struct engine_stats *stats)
{
    static const struct {
        const char *name, *help;
    } names[] = {
        [ENGINE_QUEUE_TIME] = {"request_queue_time_seconds", "Submitted to started."},
        [ENGINE_FIRST_TOKEN] = {"time_to_first_token_seconds", "Submitted to the first token."},
        [ENGINE_FIRST_ROW] = {"time_to_first_row_seconds", "Submitted to the first row of codes."},
        [ENGINE_PREFILL_TIME] = {"request_prefill_time_seconds", "Started to the first token."},
        [ENGINE_DECODE_TIME] = {"request_decode_time_seconds", "First token to the last."},
        [ENGINE_INFERENCE_TIME] = {"request_inference_time_seconds", "Started to the last token."},
        [ENGINE_PER_TOKEN] = {"request_time_per_output_token_seconds", "Decode time over tokens."},
        [ENGINE_WHOLE_TIME] = {"e2e_request_latency_seconds",
                               "Submitted to finished, pixels included."},
        [ENGINE_PROMPT_TOKENS] = {"request_prompt_tokens", "Tokens of a prompt."},
        [ENGINE_GENERATED_TOKENS] = {"request_generation_tokens",
                                     "Tokens generated for a request."},
    };
    for (int i = 0; i < ENGINE_HISTOGRAMS; i++)
        put_histogram(page, names[i].name, names[i].help, &stats->histograms[i]);
}

/* Backslash, quote and line end are what the format cannot have in a label. */
static void escape(char *to, size_t to_bytes, const char *from)
{
    size_t n = 0;
    for (; *from && n + 1 < to_bytes; from++)
        to[n++] = *from == '"' || *from == '\\' || *from == '\n' ? '_' : *from;
    to[n] = 0;
}

enum MHD_Result http_metrics(struct http_request *request)
{
    char *text = NULL;
    size_t n_bytes = 0;
    char model[256];
    struct engine_stats *stats = engine_stats(request->server->options.engine);
    struct page page = {.out = stats ? open_memstream(&text, &n_bytes) : NULL,
                        .model = model,
                        .served = request->server->options.model};
    if (!page.out) {
        free(stats);
        return MHD_NO;
    }
    escape(model, sizeof(model), request->server->options.model_name);
    model_facts(&page, stats);
    requests(&page, stats);
    memory(&page, stats);
    steps(&page, stats);
    stages(&page, stats);
    histograms(&page, stats);
    free(stats);
    if (fclose(page.out) != 0) {
        free(text);
        return MHD_NO;
    }
    return http_reply_bytes(request, 200, "text/plain; version=0.0.4; charset=utf-8", text,
                            n_bytes);
}
