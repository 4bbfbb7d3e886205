/*
 * amx_operations.h - the tile instructions as tile_amx.c and tile_bf16x2.c write them. A test that
 * compiles those files against its model of the tiles (kernels/amx_model.h) defines AMX_MODEL and
 * brings its own.
 */
#ifndef MGPT_KERNELS_CPU_AMX_OPERATIONS_H
#define MGPT_KERNELS_CPU_AMX_OPERATIONS_H

#include "kernels/cpu/amx.h"

#define AMX_INLINE AMX static inline __attribute__((always_inline))

#ifndef AMX_MODEL
#include <immintrin.h>
#define AMX                          __attribute__((target("amx-tile,amx-bf16")))
#define CONFIGURE(config)            amx_load_config(config)
#define RELEASE()                    _tile_release()
#define ZERO(tile)                   _tile_zero(tile)
#define LOAD(tile, address, stride)  _tile_loadd(tile, address, stride)
#define STORE(tile, address, stride) _tile_stored(tile, address, stride)
#define MULTIPLY(tile, a, b)         _tile_dpbf16ps(tile, a, b)
#endif

#endif
