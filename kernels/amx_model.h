/*
 * amx_model.h - for tests: the tile registers in plain C, in the place of cpu/amx_operations.h.
 * Source: Intel SDM volume 2: shapes from LDTILECFG, sums of even and odd inputs apart.
 */
#ifndef MGPT_KERNELS_AMX_MODEL_H
#define MGPT_KERNELS_AMX_MODEL_H

#include "kernels/test_tools.h"

/* Says so where the real tiles cannot be tested. */
static bool real_tiles_are_missing(void)
{
    bool missing = !code_path_available(CODE_PATH_AMX);
    if (missing)
        printf("skipped: no amx on this machine\n");
    return missing;
}

static struct {
    uint8_t rows[8];
    uint16_t row_bytes[8];
    unsigned char data[8][16][64];
    int configured;
} tiles;

static void model_configure(const void *config)
{
    const uint8_t *bytes = config;
    assert_int_equal(bytes[0], 1);
    for (int t = 0; t < 8; t++) {
        memcpy(&tiles.row_bytes[t], bytes + 16 + 2 * t, 2);
        tiles.rows[t] = bytes[48 + t];
        assert_in_range(tiles.rows[t], 1, 16);
        assert_in_range(tiles.row_bytes[t], 4, 64);
    }
    memset(tiles.data, 0, sizeof(tiles.data));
    tiles.configured = 1;
}

static void model_load(int tile, const void *from, size_t stride)
{
    assert_true(tiles.configured);
    memset(tiles.data[tile], 0, sizeof(tiles.data[tile]));
    for (int r = 0; r < tiles.rows[tile]; r++)
        memcpy(tiles.data[tile][r], (const char *)from + (size_t)r * stride, tiles.row_bytes[tile]);
}

static void model_store(int tile, void *to, size_t stride)
{
    for (int r = 0; r < tiles.rows[tile]; r++)
        memcpy((char *)to + (size_t)r * stride, tiles.data[tile][r], tiles.row_bytes[tile]);
}

static float number(const unsigned char *row, int index)
{
    bf16 half;
    memcpy(&half, row + 2 * index, sizeof(half));
    return bf16_to_f32(half);
}

static void model_multiply(int c, int a, int b)
{
    assert_int_equal(tiles.rows[c], tiles.rows[a]);
    assert_int_equal(tiles.row_bytes[c], tiles.row_bytes[b]);
    assert_int_equal(tiles.row_bytes[a] / 4, tiles.rows[b]);
    for (int m = 0; m < tiles.rows[c]; m++)
        for (int n = 0; n < tiles.row_bytes[c] / 4; n++) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < tiles.rows[b]; k++) {
                even = fmaf(number(tiles.data[a][m], 2 * k), number(tiles.data[b][k], 2 * n), even);
                odd = fmaf(number(tiles.data[a][m], 2 * k + 1), number(tiles.data[b][k], 2 * n + 1),
                           odd);
            }
            memcpy(&sum, tiles.data[c][m] + 4 * n, sizeof(sum));
            sum += even + odd;
            memcpy(tiles.data[c][m] + 4 * n, &sum, sizeof(sum));
        }
}

#define AMX_MODEL
#define AMX
#define CONFIGURE(config)            model_configure(config)
#define RELEASE()                    (tiles.configured = 0)
#define ZERO(tile)                   memset(tiles.data[tile], 0, sizeof(tiles.data[tile]))
#define LOAD(tile, address, stride)  model_load(tile, address, stride)
#define STORE(tile, address, stride) model_store(tile, address, stride)
#define MULTIPLY(tile, a, b)         model_multiply(tile, a, b)

#endif
