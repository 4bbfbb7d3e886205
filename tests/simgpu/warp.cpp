/*
 * warp.cpp - what warp instructions compute, once for all lanes.
 */
#include "internal.h"

namespace simgpu
{

namespace
{

enum { MMA_M = 16, MMA_N = 8, MMA_K = 16, MATRIX_SIDE = 8 };

float bf16_value(uint32_t pair, int which)
{
    uint32_t bits = which ? pair & 0xffff0000u : pair << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

struct mma_in {
    float c[4];
    uint32_t a[4], b[2];
};

/* Register i of a: row g + 8 (i % 2), columns 2 t + 8 (i / 2) and the next; of b: rows 2 t + 8 i and the next,
 * column g; c and d: row g + 8 (i / 2), column 2 t + i % 2. g = lane / 4, t = lane % 4. (PTX ISA, mma.m16n8k16) */
void mma_lanes(lane_exchange *lanes)
{
    float a[MMA_M][MMA_K], b[MMA_K][MMA_N], d[MMA_M][MMA_N];
    mma_in in;
    for (int lane = 0; lane < WARP_LANES; lane++) {
        int g = lane / 4, t = lane % 4;
        memcpy(&in, lanes[lane].in, sizeof(in));
        for (int i = 0; i < 4; i++) {
            for (int half = 0; half < 2; half++)
                a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + half] = bf16_value(in.a[i], half);
            d[g + 8 * (i / 2)][2 * t + i % 2] = in.c[i];
        }
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++)
                b[2 * t + 8 * i + half][g] = bf16_value(in.b[i], half);
    }
    for (int row = 0; row < MMA_M; row++)
        for (int k = 0; k < MMA_K; k++)
            for (int column = 0; column < MMA_N; column++)
                d[row][column] += a[row][k] * b[k][column];
    for (int lane = 0; lane < WARP_LANES; lane++) {
        float out[4];
        for (int i = 0; i < 4; i++)
            out[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
        memcpy(lanes[lane].out, out, sizeof(out));
    }
}

struct matrix_in {
    const uint16_t *row;
    bool transposed;
};

void load_matrix_lanes(lane_exchange *lanes)
{
    const uint16_t *rows[WARP_LANES];
    matrix_in in;
    for (int lane = 0; lane < WARP_LANES; lane++) {
        memcpy(&in, lanes[lane].in, sizeof(in));
        rows[lane] = in.row;
    }
    for (int lane = 0; lane < WARP_LANES; lane++) {
        uint32_t out[4];
        for (int i = 0; i < 4; i++) {
            const uint16_t *const *matrix = rows + MATRIX_SIDE * i;
            int r = lane / 4, c = 2 * (lane % 4);
            uint16_t low = in.transposed ? matrix[c][r] : matrix[r][c];
            uint16_t high = in.transposed ? matrix[c + 1][r] : matrix[r][c + 1];
            out[i] = (uint32_t)high << 16 | low;
        }
        memcpy(lanes[lane].out, out, sizeof(out));
    }
}

void any_lanes(lane_exchange *lanes)
{
    int any = 0, one;
    for (int lane = 0; lane < WARP_LANES; lane++) {
        memcpy(&one, lanes[lane].in, sizeof(one));
        any |= one != 0;
    }
    for (int lane = 0; lane < WARP_LANES; lane++)
        memcpy(lanes[lane].out, &any, sizeof(any));
}

} // namespace

void shuffle_lanes(lane_exchange *lanes)
{
    shuffle_in in[WARP_LANES];
    for (int lane = 0; lane < WARP_LANES; lane++)
        memcpy(&in[lane], lanes[lane].in, sizeof(in[lane]));
    for (int lane = 0; lane < WARP_LANES; lane++)
        memcpy(lanes[lane].out, &in[in[lane].from % WARP_LANES].bits, sizeof(uint32_t));
}

void mma_m16n8k16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    mma_in in;
    memcpy(in.c, d, sizeof(in.c));
    memcpy(in.a, a, sizeof(in.a));
    memcpy(in.b, b, sizeof(in.b));
    memcpy(d, warp_meet(0xffffffffu, "mma", &in, sizeof(in), mma_lanes)->out, 4 * sizeof(float));
}

void load_matrix_x4(uint32_t out[4], const void *row, bool transposed)
{
    const unsigned char *start = shared_memory(), *at = (const unsigned char *)row;
    if ((uintptr_t)row % 16 || at < start || at >= start + SHARED_BYTES_MAX)
        stop("'%s': ldmatrix of what is not shared memory aligned to 16", kernel_name());
    matrix_in in = {(const uint16_t *)row, transposed};
    const char *what = transposed ? "ldmatrix.trans" : "ldmatrix";
    memcpy(out, warp_meet(0xffffffffu, what, &in, sizeof(in), load_matrix_lanes)->out, 4 * sizeof(uint32_t));
}

} // namespace simgpu

void __syncwarp(unsigned mask)
{
    simgpu::warp_meet(mask, "syncwarp", nullptr, 0, nullptr);
}

int __any_sync(unsigned mask, int predicate)
{
    int any;
    memcpy(&any, simgpu::warp_meet(mask, "any", &predicate, sizeof(predicate), simgpu::any_lanes)->out, sizeof(any));
    return any;
}
