/*
 * hash_map.c - open addressing, linear probing, seeded hashes.
 */
#include "model/hash_map.h"

#include <assert.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(((struct name_map *)0)->seed) == crypto_shorthash_KEYBYTES,
              "the seed is the key of SipHash");

struct number_map_slot {
    uint64_t key;
    uint32_t value;
    uint32_t used;
};

struct name_map_slot {
    const char *name; /* NULL: the slot is free */
    uint32_t bytes;
    int32_t value;
};

/* The smallest power of two of which n entries fill at most two thirds. */
static size_t slots_for(size_t n)
{
    size_t n_slots = 16;
    while (n_slots * 2 < n * 3)
        n_slots *= 2;
    return n_slots;
}

static bool is_full(size_t n, size_t n_slots)
{
    return (n + 1) * 3 > n_slots * 2;
}

enum status number_map_init(struct number_map *map, size_t n, struct error *err)
{
    *map = (struct number_map){.n_slots = slots_for(n)};
    randombytes_buf(&map->seed, sizeof(map->seed));
    map->slots = calloc(map->n_slots, sizeof(*map->slots));
    if (!map->slots)
        return error_set(err, STATUS_NOMEM, "cannot allocate a map of %zu slots", map->n_slots);
    return STATUS_OK;
}

void number_map_fini(struct number_map *map)
{
    free(map->slots);
    *map = (struct number_map){0};
}

/* The finalizer of MurmurHash3 (Appleby, public domain), twice keyed. */
static uint64_t hash_number(uint64_t key, uint64_t seed)
{
    uint64_t h = key ^ seed;
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u + seed;
    return h ^ h >> 33;
}

static struct number_map_slot *find_number(const struct number_map *map, uint64_t key)
{
    size_t i = hash_number(key, map->seed) & (map->n_slots - 1);
    while (map->slots[i].used && map->slots[i].key != key)
        i = (i + 1) & (map->n_slots - 1);
    return &map->slots[i];
}

static enum status grow_numbers(struct number_map *map, struct error *err)
{
    struct number_map larger;
    enum status st = number_map_init(&larger, map->n_slots, err);
    if (st != STATUS_OK)
        return st;
    for (size_t i = 0; i < map->n_slots; i++)
        if (map->slots[i].used)
            *find_number(&larger, map->slots[i].key) = map->slots[i];
    larger.n = map->n;
    number_map_fini(map);
    *map = larger;
    return STATUS_OK;
}

enum status number_map_put(struct number_map *map, uint64_t key, uint32_t value, struct error *err)
{
    if (is_full(map->n, map->n_slots)) {
        enum status st = grow_numbers(map, err);
        if (st != STATUS_OK)
            return st;
    }
    struct number_map_slot *slot = find_number(map, key);
    map->n += !slot->used;
    *slot = (struct number_map_slot){.key = key, .value = value, .used = 1};
    return STATUS_OK;
}

const uint32_t *number_map_get(const struct number_map *map, uint64_t key)
{
    if (!map->slots)
        return NULL;
    const struct number_map_slot *slot = find_number(map, key);
    return slot->used ? &slot->value : NULL;
}

enum status name_map_init(struct name_map *map, size_t n, struct error *err)
{
    *map = (struct name_map){.n_slots = slots_for(n)};
    randombytes_buf(map->seed, sizeof(map->seed));
    map->slots = calloc(map->n_slots, sizeof(*map->slots));
    if (!map->slots)
        return error_set(err, STATUS_NOMEM, "cannot allocate a map of %zu slots", map->n_slots);
    return STATUS_OK;
}

void name_map_fini(struct name_map *map)
{
    free(map->slots);
    *map = (struct name_map){0};
}

static struct name_map_slot *find_name(const struct name_map *map, const char *name, size_t bytes)
{
    uint8_t hash[crypto_shorthash_BYTES];
    crypto_shorthash(hash, (const uint8_t *)name, bytes, map->seed);
    uint64_t start;
    memcpy(&start, hash, sizeof(start));
    size_t i = start & (map->n_slots - 1);
    while (map->slots[i].name &&
           (map->slots[i].bytes != bytes || memcmp(map->slots[i].name, name, bytes) != 0))
        i = (i + 1) & (map->n_slots - 1);
    return &map->slots[i];
}

static enum status grow_names(struct name_map *map, struct error *err)
{
    struct name_map larger;
    enum status st = name_map_init(&larger, map->n_slots, err);
    if (st != STATUS_OK)
        return st;
    for (size_t i = 0; i < map->n_slots; i++)
        if (map->slots[i].name)
            *find_name(&larger, map->slots[i].name, map->slots[i].bytes) = map->slots[i];
    larger.n = map->n;
    name_map_fini(map);
    *map = larger;
    return STATUS_OK;
}

enum status name_map_put(struct name_map *map, const char *name, size_t bytes, int32_t value,
                         struct error *err)
{
    if (is_full(map->n, map->n_slots)) {
        enum status st = grow_names(map, err);
        if (st != STATUS_OK)
            return st;
    }
    struct name_map_slot *slot = find_name(map, name, bytes);
    map->n += !slot->name;
    *slot = (struct name_map_slot){.name = name, .bytes = (uint32_t)bytes, .value = value};
    return STATUS_OK;
}

int32_t name_map_get(const struct name_map *map, const char *name, size_t bytes)
{
    if (!map->slots)
        return -1;
    const struct name_map_slot *slot = find_name(map, name, bytes);
    return slot->name ? slot->value : -1;
}
