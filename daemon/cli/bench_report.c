/*
 * bench_report.c - figures as JSON and as a table.
 */
#include <stdio.h>

#include "daemon/cli/bench.h"
#include "daemon/commit.h"

static json_t *percentiles_json(const double values[BENCH_PERCENTILES])
{
    return json_pack("{s:f, s:f, s:f}", "p50", values[BENCH_P50], "p95", values[BENCH_P95], "p99",
                     values[BENCH_P99]);
}

static json_t *machine_json(const struct bench_machine *machine)
{
    return json_pack("{s:s, s:i, s:s, s:s, s:I}", "cpu", machine->cpu, "cpus", machine->n_cpus,
                     "code_path", machine->code_path, "system", machine->kernel, "memory_bytes",
                     (json_int_t)machine->memory_bytes);
}

static json_t *limits_json(const struct bench_machine *machine)
{
    json_t *list = json_array();
    for (int i = 0; i < machine->n_limits; i++) {
        const struct bench_limit *limit = &machine->limits[i];
        json_array_append_new(list, json_pack("{s:i, s:f, s:f, s:f, s:f}", "threads",
                                              limit->threads, "read_bytes_s", limit->read_bytes_s,
                                              "dense_flop_s", limit->dense_flop_s,
                                              "read_mean_bytes_s", limit->read_mean_bytes_s,
                                              "dense_mean_flop_s", limit->dense_mean_flop_s));
    }
    return list;
}

static json_t *model_json(const struct bench_target *target)
{
    const struct model_config *c = &target->config;
    return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "name", target->name,
                     "hidden", c->hidden, "inter", c->inter, "layers", c->n_layers, "heads",
                     c->n_heads, "kv_heads", c->n_kv_heads, "head_dim", c->head_dim, "vocab",
                     c->vocab, "code_rows", target->code_rows, "compute",
                     target->item_bytes == 4 ? "f32" : "bf16");
}

static json_t *stages_json(const struct bench_result *result)
{
    json_t *list = json_array();
    for (int i = 0; i < result->n_stages; i++) {
        const struct bench_stage *stage = &result->stages[i];
        json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:f, s:f, s:f}", "pipeline",
                                              stage->pipeline, "stage", stage->stage, "units",
                                              stage->units, "busy_s", stage->busy_s, "busy_share",
                                              stage->busy_s / (result->wall_s + 1e-9), "wait_s",
                                              stage->wait_s));
    }
    return list;
}

static json_t *load_json(const struct bench_load *load)
{
    char size[64];
    json_t *mix = json_array();
    for (int i = 0; i < load->mix->n; i++) {
        snprintf(size, sizeof(size), "%dx%d", load->mix->sizes[i].size.width,
                 load->mix->sizes[i].size.height);
        json_array_append_new(
            mix, json_pack("{s:s, s:f}", "size", size, "share", load->mix->sizes[i].share));
    }
    json_t *value = json_pack("{s:s, s:I, s:o, s:i}", "loop", load->rate > 0 ? "open" : "closed",
                              "seed", (json_int_t)load->seed, "mix", mix, "prompts", BENCH_PROMPTS);
    if (load->rate > 0)
        json_object_set_new(value, "rate_per_min", json_real(load->rate));
    else
        json_object_set_new(value, "concurrency", json_integer(load->concurrency));
    return value;
}

static json_t *result_json(const struct bench_result *result, const struct bench_result *first)
{
    json_t *value = json_pack(
        "{s:o, s:i, s:i, s:s, s:f, s:f, s:f, s:o, s:o, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}",
        "load", load_json(&result->load), "requests", result->load.n_requests, "failed",
        result->n_failed, "failure", result->failure, "wall_s", result->wall_s, "images_per_min",
        result->images_per_min, "tokens_per_s", result->tokens_per_s, "first_row_s",
        percentiles_json(result->first_row_s), "image_s", percentiles_json(result->image_s),
        "goodput_per_min", result->goodput_per_min, "deadline_s", result->deadline_s,
        "rows_per_read", result->rows_per_read, "hop_bytes", result->hop_bytes, "busy_share",
        result->busy_share, "busy_share_active", result->busy_share_active, "codec_busy_s",
        result->codec_busy_s, "stages", stages_json(result));
    json_object_update_new(
        value,
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "prompt_tokens",
                  result->prompt_tokens, "read_bytes", result->read_bytes, "operations",
                  result->operations, "limit_s", result->limit_s, "images_per_min_limit",
                  result->images_per_min_limit, "of_limit", result->of_limit, "of_mean_limit",
                  result->of_mean_limit, "times_first",
                  first->images_per_min > 0 ? result->images_per_min / first->images_per_min : 0));
    return value;
}

json_t *bench_report_json(const struct bench_settings *settings, const struct bench_target *target,
                          const struct bench_machine *machine, const struct bench_result *results,
                          int n_results)
{
    json_t *runs = json_array();
    for (int i = 0; i < n_results; i++)
        json_array_append_new(runs, result_json(&results[i], &results[0]));
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:o}", "version", MGPT_VERSION, "commit",
                     MGPT_COMMIT, "machine", machine_json(machine), "limits", limits_json(machine),
                     "model", model_json(target), "server",
                     settings->base.local ? "local" : settings->base.url, "runs", runs);
}

/* ---- the table ---- */

static void print_head(const struct bench_target *target, const struct bench_machine *machine)
{
    const struct model_config *c = &target->config;
    const struct bench_limit *best = bench_machine_best(machine);
    printf("machine  %s, %d CPUs, %s\n", machine->cpu, machine->n_cpus, machine->kernel);
    if (best)
        printf("limits   %.1f GB/s read, %.0f GFLOP/s dense (%s, %d threads), measured in this "
               "run; in the mean %.1f and %.0f\n",
               best->read_bytes_s * 1e-9, best->dense_flop_s * 1e-9, machine->code_path,
               best->threads, best->read_mean_bytes_s * 1e-9, best->dense_mean_flop_s * 1e-9);
    else
        printf("limits   not measured: no processor of this machine does the work\n");
    printf("model    %s: hidden %d, inter %d, layers %d, heads %d/%d, vocab %d, %s\n", target->name,
           c->hidden, c->inter, c->n_layers, c->n_heads, c->n_kv_heads, c->vocab,
           target->item_bytes == 4 ? "f32" : "bf16");
    printf("commit   %s\n\n", MGPT_COMMIT);
}

static void print_stages(const struct bench_result *result)
{
    printf("         stages:");
    for (int i = 0; i < result->n_stages; i++)
        printf("  %d.%d [%s] busy %.1f %%, waiting for activations %.1f %%",
               result->stages[i].pipeline, result->stages[i].stage, result->stages[i].units,
               100 * result->stages[i].busy_s / (result->wall_s + 1e-9),
               100 * result->stages[i].wait_s / (result->wall_s + 1e-9));
    printf("\n");
}

static void print_result(const struct bench_result *r)
{
    char load[32];
    if (r->load.rate > 0)
        snprintf(load, sizeof(load), "%.4g/min", r->load.rate);
    else
        snprintf(load, sizeof(load), "%d open", r->load.concurrency);
    printf("%-12s %5d %6d %8.2f %8.1f %7.2f %7.2f %7.2f %7.2f %8.2f %8.1f %9.0f %6.3f %8.3f", load,
           r->load.n_requests, r->n_failed, r->images_per_min, r->tokens_per_s,
           r->first_row_s[BENCH_P50], r->image_s[BENCH_P50], r->image_s[BENCH_P95],
           r->image_s[BENCH_P99], r->goodput_per_min, r->rows_per_read, r->hop_bytes, r->busy_share,
           r->busy_share_active);
    if (r->of_limit > 0)
        printf(" %8.1f %6.3f\n", r->images_per_min_limit, r->of_limit);
    else
        printf(" %8s %6s\n", "-", "-");
    if (r->n_failed > 0)
        printf("         first failure: %s\n", r->failure);
}

void bench_report_table(const struct bench_target *target, const struct bench_machine *machine,
                        const struct bench_result *results, int n_results)
{
    print_head(target, machine);
    printf("%-12s %5s %6s %8s %8s %7s %7s %7s %7s %8s %8s %9s %6s %8s %8s %6s\n", "load", "n",
           "failed", "img/min", "tokens/s", "row1 s", "p50 s", "p95 s", "p99 s", "good/min",
           "rows/rd", "B/hop", "U", "U active", "limit", "of it");
    for (int i = 0; i < n_results; i++) {
        print_result(&results[i]);
        print_stages(&results[i]);
    }
    printf("\ngood/min: done within %.4g s. rows/rd: rows for each read of the weights. U: kernel "
           "time on committed rows over stages * wall\n(U active: over the time with work in the "
           "stages). limit: images/min with one read of the weights for all open requests.\n",
           n_results > 0 ? results[0].deadline_s : 0);
}
