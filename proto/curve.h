/*
 * curve.h - who may talk: plain sockets on this machine only, CURVE everywhere else.
 *
 * A key file has three lines, in any order, each a word and a Z85 key of 40 characters; a line that
 * begins with '#' is a comment: public KEY      own key pair secret KEY server KEY      public key
 * of the controller (its own public key in the controller's file) A CURVE server admits whoever
 * knows its public key; that key never crosses the wire in clear, so it is kept like a password: it
 * stands in key files (which must not be readable by others) and in messages that are encrypted
 * themselves.
 */
#ifndef MGPT_PROTO_CURVE_H
#define MGPT_PROTO_CURVE_H

#include <stdbool.h>

#include "base/error.h"

enum { CURVE_KEY_CHARS = 40, CURVE_FILE_BYTES_MAX = 4096 };

struct curve_keys {
    char public_key[CURVE_KEY_CHARS + 1];
    char secret_key[CURVE_KEY_CHARS + 1];
    char server_key[CURVE_KEY_CHARS + 1];
};

/* STATUS_INVALID names the line; a file that group or others can read is refused. */
enum status curve_load_file(struct curve_keys *out, const char *path, struct error *err);

/* A new key pair; server_key is its own public key. */
enum status curve_generate(struct curve_keys *out, struct error *err);

/* Call before bind (server) or connect (client). */
enum status curve_set_server(void *socket, const struct curve_keys *keys, struct error *err);
enum status curve_set_client(void *socket, const struct curve_keys *keys, const char *server_key,
                             struct error *err);

/* ipc://..., inproc://..., tcp://127.x.x.x:..., tcp://localhost:..., tcp://[::1]:... */
bool curve_endpoint_is_local(const char *endpoint);

#endif
