/*
 * yaml_fuzz.c - any bytes as vqgan.yaml: what is accepted keeps its promises.
 */
#include <stdint.h>

#include "base/check.h"
#include "model/vqgan_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    struct vqgan_config c;
    struct error err;
    if (vqgan_config_parse(&c, bytes, n_bytes, "vqgan.yaml", &err) != STATUS_OK)
        return 0;
    CHECK(c.n_levels > 0 && c.n_levels <= VQGAN_LEVELS_MAX);
    for (int i = 0; i < c.n_levels; i++)
        CHECK(c.ch * c.ch_mult[i] <= VQGAN_CHANNELS_MAX);
    CHECK(c.ch % 32 == 0 && c.n_embed > 0 && c.embed_dim > 0 && c.z_channels > 0 &&
          c.n_res_blocks > 0);
    return 0;
}
