/*
 * bench_chart.c - two panels as SVG: images/min with the machine's limit, and time per image, one
 * place on the x axis for each run.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "daemon/cli/bench.h"

enum { WIDTH = 960, HEIGHT = 420, PANEL_WIDTH = 380, PANEL_HEIGHT = 260, TOP = 90, N_TICKS = 5 };

struct series {
    const char *name, *colour, *dashes;
    double (*value)(const struct bench_result *result);
};

struct panel {
    FILE *out;
    int left; /* of the area with the lines */
    double top_value;
    const struct bench_result *results;
    int n_results;
};

static double images(const struct bench_result *result)
{
    return result->images_per_min;
}

static double images_limit(const struct bench_result *result)
{
    return result->images_per_min_limit;
}

static double p50(const struct bench_result *result)
{
    return result->image_s[BENCH_P50];
}

static double p95(const struct bench_result *result)
{
    return result->image_s[BENCH_P95];
}

static double first_row(const struct bench_result *result)
{
    return result->first_row_s[BENCH_P50];
}

/* The next of 1, 2, 2.5, 5, 10 times a power of ten. */
static double round_up(double value)
{
    static const double steps[] = {1, 2, 2.5, 5, 10};
    double power = pow(10, floor(log10(value > 0 ? value : 1)));
    for (int i = 0; i < 5; i++)
        if (value <= steps[i] * power)
            return steps[i] * power;
    return 10 * power;
}

static double x_of(const struct panel *panel, int index)
{
    double step = (double)PANEL_WIDTH / panel->n_results;
    return panel->left + (index + 0.5) * step;
}

static double y_of(const struct panel *panel, double value)
{
    return TOP + PANEL_HEIGHT * (1 - value / panel->top_value);
}

static void text(FILE *out, double x, double y, const char *anchor, int size, const char *value)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">", x, y, anchor,
            size);
    for (; *value; value++) {
        if (*value == '<' || *value == '&' || *value == '>')
            fputc('_', out);
        else
            fputc(*value, out);
    }
    fprintf(out, "</text>\n");
}

static void draw_axes(const struct panel *panel, const char *title)
{
    char label[32];
    text(panel->out, panel->left, TOP - 30, "start", 14, title);
    for (int i = 0; i <= N_TICKS; i++) {
        double value = panel->top_value * i / N_TICKS, y = y_of(panel, value);
        fprintf(panel->out, "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"%s\"/>\n",
                panel->left, y, panel->left + PANEL_WIDTH, y, i == 0 ? "#444" : "#ddd");
        snprintf(label, sizeof(label), "%.4g", value);
        text(panel->out, panel->left - 6, y + 4, "end", 11, label);
    }
    for (int i = 0; i < panel->n_results; i++) {
        const struct bench_load *load = &panel->results[i].load;
        if (load->rate > 0)
            snprintf(label, sizeof(label), "%.4g/min", load->rate);
        else
            snprintf(label, sizeof(label), "%d", load->concurrency);
        text(panel->out, x_of(panel, i), TOP + PANEL_HEIGHT + 18, "middle", 11, label);
    }
    text(panel->out, panel->left + PANEL_WIDTH / 2.0, TOP + PANEL_HEIGHT + 40, "middle", 12,
         panel->results[0].load.rate > 0 ? "requests a minute" : "requests open at once");
}

static void draw_series(const struct panel *panel, const struct series *series, int place)
{
    FILE *out = panel->out;
    fprintf(out,
            "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" stroke-dasharray=\"%s\" "
            "points=\"",
            series->colour, series->dashes);
    for (int i = 0; i < panel->n_results; i++)
        fprintf(out, "%.1f,%.1f ", x_of(panel, i), y_of(panel, series->value(&panel->results[i])));
    fprintf(out, "\"/>\n");
    for (int i = 0; i < panel->n_results && !series->dashes[0]; i++)
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", x_of(panel, i),
                y_of(panel, series->value(&panel->results[i])), series->colour);
    double x = panel->left + 120.0 * place;
    fprintf(out,
            "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\" "
            "stroke-dasharray=\"%s\"/>\n",
            x, TOP - 14, x + 22, TOP - 14, series->colour, series->dashes);
    text(out, x + 27, TOP - 10, "start", 11, series->name);
}

static void draw_panel(struct panel *panel, const char *title, const struct series *series,
                       int n_series)
{
    double most = 0;
    for (int s = 0; s < n_series; s++)
        for (int i = 0; i < panel->n_results; i++)
            most = fmax(most, series[s].value(&panel->results[i]));
    panel->top_value = round_up(most);
    draw_axes(panel, title);
    for (int s = 0; s < n_series; s++)
        draw_series(panel, &series[s], s);
}

static void draw(FILE *out, const struct bench_target *target, const struct bench_machine *machine,
                 const struct bench_result *results, int n_results)
{
    static const struct series throughput[] = {{"measured", "#1668c4", "", images},
                                               {"limit", "#888", "6 4", images_limit}};
    static const struct series times[] = {{"p50", "#1668c4", "", p50},
                                          {"p95", "#c4461b", "", p95},
                                          {"first row, p50", "#3c9a4a", "", first_row}};
    char line[400];
    const struct bench_limit *best = bench_machine_best(machine);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
            "font-family=\"sans-serif\" fill=\"#222\">\n<rect width=\"100%%\" height=\"100%%\" "
            "fill=\"#fff\"/>\n",
            WIDTH, HEIGHT);
    snprintf(line, sizeof(line), "%s on %s, %d CPUs, %d stages", target->name, machine->cpu,
             machine->n_cpus, results[0].n_stages);
    text(out, 60, 20, "start", 15, line);
    if (best) {
        snprintf(line, sizeof(line), "limits of the machine: %.1f GB/s read, %.0f GFLOP/s (%s)",
                 best->read_bytes_s * 1e-9, best->dense_flop_s * 1e-9, machine->code_path);
        text(out, 60, 36, "start", 11, line);
    }
    struct panel panel = {.out = out, .left = 60, .results = results, .n_results = n_results};
    draw_panel(&panel, "images a minute", throughput, results[0].images_per_min_limit > 0 ? 2 : 1);
    panel.left = 540;
    draw_panel(&panel, "seconds", times, 3);
    fprintf(out, "</svg>\n");
}

enum status bench_chart_write(const char *path, const struct bench_target *target,
                              const struct bench_machine *machine,
                              const struct bench_result *results, int n_results, struct error *err)
{
    FILE *out = fopen(path, "we");
    if (!out)
        return error_set_errno(err, STATUS_IO, errno, "cannot open '%s'", path);
    draw(out, target, machine, results, n_results);
    bool good = !ferror(out);
    good = fclose(out) == 0 && good;
    return good ? STATUS_OK : error_set(err, STATUS_IO, "cannot write '%s'", path);
}
