/*
 * daemon_config_fuzz.c - any bytes as the YAML file of --config: values land in their fields or are refused by name.
 */
#include <stdint.h>

#include "base/check.h"
#include "daemon/config_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

struct settings {
    const char *model;
    int stages, compute;
    bool quiet;
    double ratio;
    struct option_size size;
};

static const char *const computes[] = {"f32", "bf16", NULL};

static const struct option table[] = {
    {"model", "DIR", OPTION_TEXT, offsetof(struct settings, model), .help = ""},
    {"stages", "N", OPTION_INT, offsetof(struct settings, stages), .default_value = "1", .min = 1, .max = 64},
    {"compute", "TYPE", OPTION_CHOICE, offsetof(struct settings, compute), .choices = computes},
    {"quiet", NULL, OPTION_FLAG, offsetof(struct settings, quiet), .help = ""},
    {"ratio", "R", OPTION_FLOAT, offsetof(struct settings, ratio), .min = -1, .max = 1},
    {"size", "WxH", OPTION_SIZE, offsetof(struct settings, size), .help = ""},
    {0}};

static const struct option_set set = {.program = "fuzz", .options = table};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct config_file file;
    struct settings settings = {0};
    struct error err = {0};
    bool given[OPTIONS_MAX] = {false};
    options_defaults(&set, &settings);
    if (config_file_parse(&file, bytes, n_bytes, "fuzz.yaml", &err) != STATUS_OK) {
        CHECK(err.text[0] != 0);
        CHECK(file.n == 0);
        return 0;
    }
    if (config_file_apply(&file, &set, &settings, given, "fuzz.yaml", &err) == STATUS_OK) {
        CHECK(settings.stages >= 1 && settings.stages <= 64);
        CHECK(settings.compute == 0 || settings.compute == 1);
        CHECK(settings.ratio >= -1 && settings.ratio <= 1);
    }
    config_file_fini(&file);
    return 0;
}
