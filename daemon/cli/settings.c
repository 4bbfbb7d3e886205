/*
 * settings.c - defaults of the model fill what the command line leaves open.
 */
#include "daemon/cli/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

const char *const settings_links[] = {
    [ENGINE_LINK_AUTO] = "auto", [ENGINE_LINK_ZMQ] = "zmq", [ENGINE_LINK_NCCL] = "nccl", NULL};
const char *const settings_computes[] = {[ENGINE_F32] = "f32", [ENGINE_BF16] = "bf16", NULL};

int settings_start(struct settings *out, const struct option_set *set, int argc, char **argv)
{
    memset(out, 0, sizeof(*out));
    out->guidance = out->temperature = -1;
    out->image_top_k = out->text_top_k = -1;
    return options_start(set, out, argc, argv);
}

int settings_read_seed(struct settings *settings, const char *program)
{
    char *end;
    errno = 0;
    settings->has_seed = settings->seed_text != NULL;
    if (!settings->has_seed)
        return -1;
    long long seed = strtoll(settings->seed_text, &end, 10);
    settings->seed = (uint64_t)seed;
    if (end != settings->seed_text && !*end && !errno && seed >= 0)
        return -1;
    fprintf(stderr, "%s: --seed wants a whole number from 0 to 2^63 - 1, got '%s'\n", program,
            settings->seed_text);
    return 2;
}

void settings_sampling(struct plan_sampling *out, const struct settings *settings,
                       const struct mgpt_settings *defaults)
{
    *out = (struct plan_sampling){
        .seed = settings->seed,
        .picture_index = (uint32_t)settings->picture_index,
        .temperature =
            (float)(settings->temperature < 0 ? defaults->temperature : settings->temperature),
        .guidance = (float)(settings->guidance < 0 ? defaults->guidance_scale : settings->guidance),
        .image_top_k = settings->image_top_k < 0 ? defaults->image_top_k : settings->image_top_k,
        .text_top_k = settings->text_top_k < 0 ? defaults->text_top_k : settings->text_top_k};
}

int settings_target(const struct settings *settings, const struct mgpt_settings *defaults)
{
    return settings->target_size > 0 ? settings->target_size : defaults->target_size;
}

/* Commands are quiet; MGPT_LOG shows more, here and in the workers. */
static const char *log_level(void)
{
    const char *name = getenv("MGPT_LOG");
    return name && log_parse_level(name) >= 0 ? name : "warn";
}

void settings_engine(struct engine_options *out, const struct settings *settings,
                     const struct served_model *model)
{
    *out = (struct engine_options){.model = model,
                                   .vq_dir = settings->vq,
                                   .device = settings->device,
                                   .log_level = log_level(),
                                   .compute = (enum engine_compute)settings->compute,
                                   .link = (enum engine_link)settings->link,
                                   .n_stages = settings->n_stages,
                                   .cut = settings->cut,
                                   .picture_size = {settings->size.width, settings->size.height},
                                   .kv_blocks = settings->kv_blocks,
                                   .prefill_rows = settings->chunk,
                                   .threads = settings->threads};
}
