/*
 * gumbel.c - guidance, and the noise of gumbel_formula.h on vectors of eight 64-bit lanes.
 */
#include "kernels/cpu/gumbel.h"

#include "kernels/cpu/vector.h"

typedef double f64x8 __attribute__((vector_size(64)));
typedef uint64_t u64x8 __attribute__((vector_size(64)));

enum { WIDE = 8 };

#define GUMBEL_F64    f64x8
#define GUMBEL_U64    u64x8
#define GUMBEL_INLINE VECTOR_INLINE
#include "kernels/gumbel_formula.h"

VECTOR_INLINE void gumbel_eight(double *noise, const int32_t *ids, const struct gumbel_place *place)
{
    u64x8 id = {0};
    for (int i = 0; i < WIDE; i++)
        id[i] = (uint32_t)ids[i];
    f64x8 g = gumbel_noise(id, place);
    memcpy(noise, &g, sizeof(g));
}

VECTOR_INLINE void sixteen_body(double *noise, const int32_t *ids, const struct gumbel_place *place)
{
    gumbel_eight(noise, ids, place);
    gumbel_eight(noise + WIDE, ids + WIDE, place);
}

FOR_EACH_PATH(sixteen, (double *noise, const int32_t *ids, const struct gumbel_place *place),
              (noise, ids, place))

gumbel_function gumbel_of(enum code_path path)
{
    return sixteen_of(path);
}

/* Adding zero turns the negative zero into the other. */
VECTOR_INLINE void guide_lanes_body(float *out, const float *c, const float *u, float guidance,
                                    int n, int *not_numbers)
{
    u32x16 seen = {0};
    for (int i = 0; i < n; i += LANES) {
        int here = n - i < LANES ? n - i : LANES;
        f32x16 v = load_lanes(c, DTYPE_F32, (size_t)i, here);
        if (u) {
            f32x16 base = load_lanes(u, DTYPE_F32, (size_t)i, here);
            v = base + guidance * (v - base);
        }
        v += 0.0f;
        store_lanes(out, DTYPE_F32, (size_t)i, v, here);
        seen |= sign_mask(0x7f800000u - (to_bits(v) & 0x7fffffffu));
    }
    for (int i = 0; i < LANES; i++)
        *not_numbers |= seen[i] != 0;
}
FOR_EACH_PATH(guide_lanes,
              (float *out, const float *c, const float *u, float guidance, int n, int *not_numbers),
              (out, c, u, guidance, n, not_numbers))

guide_function guide_of(enum code_path path)
{
    return guide_lanes_of(path);
}

double sample_log(double x)
{
    f64x8 v = gumbel_log((f64x8){0} + x);
    return v[0];
}
