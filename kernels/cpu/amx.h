/*
 * amx.h - the configuration of the tile registers, palette 1. Source: Intel SDM volume 2,
 * LDTILECFG.
 */
#ifndef MGPT_KERNELS_CPU_AMX_H
#define MGPT_KERNELS_CPU_AMX_H

#include <stdint.h>

enum { AMX_TILES = 8, AMX_TILE_ROWS = 16, AMX_ROW_BYTES = 64 };

struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct amx_config) == 64, "LDTILECFG reads 64 bytes");

/* All tiles whole; first_rows: of tiles 0 to n_first - 1. */
static inline struct amx_config amx_config_of(int n_first, int first_rows)
{
    struct amx_config config = {.palette = 1};
    for (int tile = 0; tile < AMX_TILES; tile++) {
        config.row_bytes[tile] = AMX_ROW_BYTES;
        config.rows[tile] = (uint8_t)(tile < n_first ? first_rows : AMX_TILE_ROWS);
    }
    return config;
}

#if defined(__x86_64__)
/* All tiles are zero then. Not _tile_loadconfig: GCC's tells the compiler of 8 bytes that are read,
 * and GCC 12 leaves out the stores to the other 56. */
__attribute__((target("amx-tile"))) static inline void
amx_load_config(const struct amx_config *config)
{
    __asm__ volatile("ldtilecfg %0" ::"m"(*config));
}
#endif

#endif
