/*
 * file_store.c - a ring of files behind a lock.
 */
#include "daemon/file_store.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { NAME_RANDOM_BYTES = 16 };

struct file {
    char name[FILE_STORE_NAME_BYTES];
    uint8_t *bytes;
    size_t n_bytes;
    int64_t put_s;
};

struct file_store {
    pthread_mutex_t lock;
    struct file files[FILE_STORE_FILES_MAX]; /* ring: [first, first + n) */
    int first, n;
    size_t n_bytes;
};

enum status file_store_create(struct file_store **out, struct error *err)
{
    *out = calloc(1, sizeof(**out));
    if (!*out)
        return error_set(err, STATUS_NOMEM, "cannot allocate the store of pictures");
    pthread_mutex_init(&(*out)->lock, NULL);
    return STATUS_OK;
}

static void drop_oldest(struct file_store *store)
{
    struct file *file = &store->files[store->first];
    store->n_bytes -= file->n_bytes;
    free(file->bytes);
    memset(file, 0, sizeof(*file));
    store->first = (store->first + 1) % FILE_STORE_FILES_MAX;
    store->n--;
}

static void drop_old(struct file_store *store, int64_t now_s)
{
    while (store->n > 0 && now_s - store->files[store->first].put_s > FILE_STORE_AGE_S)
        drop_oldest(store);
}

void file_store_destroy(struct file_store *store)
{
    if (!store)
        return;
    while (store->n > 0)
        drop_oldest(store);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

static enum status make_name(char name[FILE_STORE_NAME_BYTES], const char *extension,
                             struct error *err)
{
    uint8_t random[NAME_RANDOM_BYTES];
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        return error_set(err, STATUS_IO, "cannot get random bytes");
    for (int i = 0; i < NAME_RANDOM_BYTES; i++)
        snprintf(name + 2 * i, 3, "%02x", random[i]);
    snprintf(name + 2 * NAME_RANDOM_BYTES, FILE_STORE_NAME_BYTES - 2 * NAME_RANDOM_BYTES, ".%s",
             extension);
    return STATUS_OK;
}

enum status file_store_put(struct file_store *store, uint8_t *take_bytes, size_t n_bytes,
                           const char *extension, int64_t now_s, char name[FILE_STORE_NAME_BYTES],
                           struct error *err)
{
    enum status st = make_name(name, extension, err);
    if (st == STATUS_OK && n_bytes > FILE_STORE_BYTES_MAX)
        st = error_set(err, STATUS_NOMEM, "a picture of %zu bytes, the store takes %d", n_bytes,
                       FILE_STORE_BYTES_MAX);
    if (st != STATUS_OK) {
        free(take_bytes);
        return st;
    }
    pthread_mutex_lock(&store->lock);
    drop_old(store, now_s);
    while (store->n == FILE_STORE_FILES_MAX || store->n_bytes + n_bytes > FILE_STORE_BYTES_MAX)
        drop_oldest(store);
    struct file *file = &store->files[(store->first + store->n) % FILE_STORE_FILES_MAX];
    memcpy(file->name, name, sizeof(file->name));
    file->bytes = take_bytes;
    file->n_bytes = n_bytes;
    file->put_s = now_s;
    store->n_bytes += n_bytes;
    store->n++;
    pthread_mutex_unlock(&store->lock);
    return STATUS_OK;
}

enum status file_store_get(struct file_store *store, const char *name, int64_t now_s,
                           uint8_t **bytes, size_t *n_bytes, struct error *err)
{
    enum status st = error_set(err, STATUS_NOT_FOUND, "no such file, or it is older than %d s",
                               FILE_STORE_AGE_S);
    pthread_mutex_lock(&store->lock);
    drop_old(store, now_s);
    for (int i = 0; i < store->n && st == STATUS_NOT_FOUND; i++) {
        const struct file *file = &store->files[(store->first + i) % FILE_STORE_FILES_MAX];
        if (strcmp(file->name, name) != 0)
            continue;
        *bytes = malloc(file->n_bytes + 1);
        st = *bytes ? STATUS_OK
                    : error_set(err, STATUS_NOMEM, "cannot allocate %zu bytes", file->n_bytes);
        if (st == STATUS_OK) {
            memcpy(*bytes, file->bytes, file->n_bytes);
            *n_bytes = file->n_bytes;
        }
    }
    pthread_mutex_unlock(&store->lock);
    return st;
}
