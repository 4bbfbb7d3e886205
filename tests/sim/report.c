/*
 * report.c - printing; see report.h.
 */
#include "tests/sim/report.h"

#include <stdio.h>

void report_head(void)
{
    printf("%-34s %6s %5s %6s %6s %7s %8s %8s %8s %7s %7s %7s %7s | loss %%: %5s %5s %5s %5s %5s\n",
           "case", "stages", "slots", "U", "U full", "rows/rd", "img/min", "p50 s", "p95 s",
           "p99 s", "row1 s", "eta err", "queued", "none", "few", "mem", "way", "unev");
}

void report_line(const char *name, const struct sim_options *o, const struct sim_result *r)
{
    printf(
        "%-34s %6d %5.1f %6.3f %6.3f %7.1f %8.2f %8.1f %8.1f %8.1f %7.1f %6.1f%% %6.1f%% |         "
        "%5.1f %5.1f %5.1f "
        "%5.1f %5.1f\n",
        name, o->n_stages, r->mean_slots, r->busy_share, r->filled_share, r->rows_per_read,
        r->images_per_min, r->latency_s[0], r->latency_s[1], r->latency_s[2], r->first_row_s[0],
        100 * r->half_estimate_error, 100 * r->queue_estimate_error, 100 * r->losses.no_work,
        100 * r->losses.few, 100 * r->losses.memory, 100 * r->losses.way, 100 * r->losses.uneven);
}

void report_json(const struct sim_options *o, const struct sim_result *r)
{
    printf(
        "{\"stages\":%d,\"micro_batches\":%.0f,\"wall_s\":%.3f,\"finished\":%d,\"busy_share\":%.5f,"
        "\"busy_share_filled\":%.5f,",
        o->n_stages, r->mean_slots, r->wall_s, r->n_finished, r->busy_share, r->filled_share);
    printf("\"rows_per_read\":%.2f,\"images_per_min\":%.4f,\"tokens_per_s\":%.2f,\"plans\":%lld,"
           "\"running_mean\":%.2f,\"preempted\":%lld,",
           r->rows_per_read, r->images_per_min, r->tokens_per_s, (long long)r->n_plans,
           r->mean_running, (long long)r->preempted);
    printf("\"latency_s\":{\"p50\":%.3f,\"p95\":%.3f,\"p99\":%.3f},\"first_row_s\":{\"p50\":%.3f,"
           "\"p95\":%.3f,\"p99\":%.3f},\"estimate_error\":{\"half_way\":%.4f,\"queued\":%.4f},",
           r->latency_s[0], r->latency_s[1], r->latency_s[2], r->first_row_s[0], r->first_row_s[1],
           r->first_row_s[2], r->half_estimate_error, r->queue_estimate_error);
    printf("\"loss\":{\"no_work\":%.5f,\"few_requests\":%.5f,\"memory\":%.5f,\"way\":%.5f,"
           "\"uneven\":%.5f}}\n",
           r->losses.no_work, r->losses.few, r->losses.memory, r->losses.way, r->losses.uneven);
}
