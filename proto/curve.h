/*
 * curve.h - who may talk: plain sockets on this machine only, CURVE everywhere else.
 *
 * A key file has lines in any order, each a word and a Z85 key of 40 characters; a line that begins
 * with '#' is a comment:
 *     public KEY, secret KEY    the own pair
 *     server KEY                public key of the controller (its own public key in its own file)
 *     worker KEY                in the controller's file, once for each worker that it lets in
 * The file must not be readable by others.
 *
 * A CURVE socket by itself admits whoever knows its public key. The controller's socket for other
 * machines asks for more: the client's key must be one of the `worker` lines (daemon/remote.c). A
 * hop between stages has a key pair of its own that is made for it, and its public key is told to
 * the stage before alone, over control links that are encrypted or do not leave the machine.
 */
#ifndef MGPT_PROTO_CURVE_H
#define MGPT_PROTO_CURVE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { CURVE_KEY_CHARS = 40, CURVE_FILE_BYTES_MAX = 64 << 10, CURVE_LIST_MAX = 512 };

struct curve_keys {
    char public_key[CURVE_KEY_CHARS + 1];
    char secret_key[CURVE_KEY_CHARS + 1];
    char server_key[CURVE_KEY_CHARS + 1];
};

/* Public keys of those who are let in. */
struct curve_list {
    int n;
    char keys[CURVE_LIST_MAX][CURVE_KEY_CHARS + 1];
};

/*
 * STATUS_INVALID names the line; a file that group or others can read is refused.
 * workers: NULL where the file is a worker's; then `worker` lines are refused.
 */
enum status curve_load_file(struct curve_keys *out, struct curve_list *workers, const char *path,
                            struct error *err);

/* key: the bytes of a public key, as sockets tell it. */
enum { CURVE_KEY_BYTES = 32 };
bool curve_list_has(const struct curve_list *list, const uint8_t key[CURVE_KEY_BYTES]);

/* A new key pair; server_key is its own public key. */
enum status curve_generate(struct curve_keys *out, struct error *err);

/* Call before bind (server) or connect (client). */
enum status curve_set_server(void *socket, const struct curve_keys *keys, struct error *err);
enum status curve_set_client(void *socket, const struct curve_keys *keys, const char *server_key,
                             struct error *err);

/* ipc://..., inproc://..., tcp://127.x.x.x:..., tcp://localhost:..., tcp://[::1]:... */
bool curve_endpoint_is_local(const char *endpoint);

#endif
