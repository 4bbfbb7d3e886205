/*
 * hash_map.h - two hash maps for tokenizers: by a number of 64 bits, and by the bytes of a name.
 *
 * Keys come from files of strangers: hashes start from a random seed, so that nobody can make
 * keys collide on purpose. Entries are never removed.
 * Threads: lookups from any number; insertion by one alone.
 */
#ifndef MGPT_MODEL_HASH_MAP_H
#define MGPT_MODEL_HASH_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* uint64_t -> uint32_t */
struct number_map {
    struct number_map_slot *slots; /* [n_slots], a power of two; at least a third is free */
    size_t n_slots, n;
    uint64_t seed;
};

/* Space for n entries at once; more can come. End it with number_map_fini(). */
enum status number_map_init(struct number_map *map, size_t n, struct error *err);
void number_map_fini(struct number_map *map); /* {0} is fine */

/* Inserts, or replaces the value of a key that is there. */
enum status number_map_put(struct number_map *map, uint64_t key, uint32_t value, struct error *err);

/* NULL when the key is not there. Valid until the next insertion. */
const uint32_t *number_map_get(const struct number_map *map, uint64_t key);

/* bytes -> int32_t; keys are borrowed and must live as long as the map. */
struct name_map {
    struct name_map_slot *slots; /* [n_slots], as above */
    size_t n_slots, n;
    uint8_t seed[16];
};

enum status name_map_init(struct name_map *map, size_t n, struct error *err);
void name_map_fini(struct name_map *map); /* {0} is fine */
enum status name_map_put(struct name_map *map, const char *name, size_t bytes, int32_t value,
                         struct error *err);

/* -1 when the name is not there. */
int32_t name_map_get(const struct name_map *map, const char *name, size_t bytes);

#endif
