/*
 * config_fuzz.c - any bytes as config.json and as mgpt.json: what is accepted keeps its promises.
 */
#include <stdint.h>

#include "base/check.h"
#include "model/config.h"
#include "model/mgpt_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct model_config c;
    struct mgpt_settings s;
    struct error err;
    if (model_config_parse(&c, bytes, n_bytes, "config.json", &err) == STATUS_OK) {
        CHECK(c.hidden == c.n_heads * c.head_dim);
        CHECK(c.n_layers > 0 && c.n_layers <= CONFIG_LAYERS_MAX);
        CHECK(c.n_heads % c.n_kv_heads == 0);
        CHECK(c.n_kv_heads % c.model_parallel_size == 0);
        CHECK(c.head_dim % 2 == 0);
        CHECK(c.rope_factor >= 1 && c.rope_theta >= 1 && c.rms_eps > 0);
    }
    if (mgpt_settings_parse(&s, bytes, n_bytes, "mgpt.json", &err) == STATUS_OK) {
        CHECK(s.target_size % 32 == 0 && s.target_size > 0);
        CHECK(s.default_width % 32 == 0 && s.default_height % 32 == 0);
    }
    return 0;
}
