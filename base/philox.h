/*
 * philox.h - Philox4x32-10, the counter-based random function all sampling rests on.
 *
 * Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3"; constants from there.
 */
#ifndef MGPT_BASE_PHILOX_H
#define MGPT_BASE_PHILOX_H

#include <stdint.h>

/* out = Philox4x32-10(counter, key), ten rounds. */
void philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
