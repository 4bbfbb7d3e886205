/*
 * curve.c - key files and the CURVE options of libzmq.
 */
#include "proto/curve.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

static enum status check_key(const char *key, struct error *err)
{
    uint8_t bytes[CURVE_KEY_BYTES];
    if (strlen(key) != CURVE_KEY_CHARS || !zmq_z85_decode(bytes, key))
        return error_set(err, STATUS_INVALID, "a key is %d characters of Z85", CURVE_KEY_CHARS);
    return STATUS_OK;
}

/* Reads the whole file, which must be regular, private to its owner and below CURVE_FILE_BYTES_MAX.
 */
static enum status read_private_file(char *text, const char *path, struct error *err)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return error_set_errno(err, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, errno,
                               "cannot open key file '%s'", path);
    struct stat info;
    enum status st = STATUS_OK;
    if (fstat(file, &info) != 0)
        st = error_set_errno(err, STATUS_IO, errno, "cannot look at key file '%s'", path);
    else if (!S_ISREG(info.st_mode))
        st = error_set(err, STATUS_INVALID, "key file '%s' is not a regular file", path);
    else if (info.st_mode & (S_IRWXG | S_IRWXO))
        st = error_set(err, STATUS_INVALID,
                       "key file '%s' can be read by others (mode %03o); run chmod 600 on it", path,
                       (unsigned)(info.st_mode & 0777));
    else if (info.st_size >= CURVE_FILE_BYTES_MAX)
        st = error_set(err, STATUS_INVALID, "key file '%s' has %lld bytes, limit %d", path,
                       (long long)info.st_size, CURVE_FILE_BYTES_MAX - 1);
    if (st == STATUS_OK) {
        ssize_t n = read(file, text, CURVE_FILE_BYTES_MAX - 1);
        if (n < 0)
            st = error_set_errno(err, STATUS_IO, errno, "cannot read key file '%s'", path);
        else
            text[n] = '\0';
    }
    close(file);
    return st;
}

/* Where a word's key goes; NULL: a word that such a file does not have, or no room. */
static char *find_place(struct curve_keys *keys, struct curve_list *workers, const char *word,
                        struct error *err)
{
    if (strcmp(word, "public") == 0)
        return keys->public_key;
    if (strcmp(word, "secret") == 0)
        return keys->secret_key;
    if (strcmp(word, "server") == 0)
        return keys->server_key;
    if (strcmp(word, "worker") != 0 || !workers) {
        error_set(err, STATUS_INVALID, "unknown word, expected public, secret%s",
                  workers ? ", server or worker" : " or server");
        return NULL;
    }
    if (workers->n < CURVE_LIST_MAX)
        return workers->keys[workers->n++];
    error_set(err, STATUS_INVALID, "more than %d workers", CURVE_LIST_MAX);
    return NULL;
}

/* One line: blank, a comment, or "word KEY". */
static enum status read_line(struct curve_keys *keys, struct curve_list *workers, char *line,
                             struct error *err)
{
    char *position = NULL;
    const char *word = strtok_r(line, " \t\r", &position);
    if (!word || *word == '#')
        return STATUS_OK;
    const char *key = strtok_r(NULL, " \t\r", &position);
    if (!key || strtok_r(NULL, " \t\r", &position))
        return error_set(err, STATUS_INVALID, "expected a word and a key");
    char *place = find_place(keys, workers, word, err);
    if (!place)
        return STATUS_INVALID;
    if (*place)
        return error_set(err, STATUS_INVALID, "'%s' occurs twice", word);
    enum status st = check_key(key, err);
    if (st == STATUS_OK)
        memcpy(place, key, CURVE_KEY_CHARS + 1);
    return st;
}

enum status curve_load_file(struct curve_keys *out, struct curve_list *workers, const char *path,
                            struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (workers)
        memset(workers, 0, sizeof(*workers));
    char text[CURVE_FILE_BYTES_MAX];
    enum status st = read_private_file(text, path, err);
    int line_number = 0;
    for (char *line = text, *next; st == STATUS_OK && line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        line_number++;
        st = read_line(out, workers, line, err);
        if (st != STATUS_OK)
            error_wrap(err, st, "key file '%s', line %d", path, line_number);
    }
    if (st == STATUS_OK && !(out->public_key[0] && out->secret_key[0] && out->server_key[0]))
        st = error_set(err, STATUS_INVALID, "key file '%s' lacks one of public, secret and server",
                       path);
    if (st != STATUS_OK)
        memset(out, 0, sizeof(*out));
    return st;
}

bool curve_list_has(const struct curve_list *list, const uint8_t key[CURVE_KEY_BYTES])
{
    char text[CURVE_KEY_CHARS + 1];
    zmq_z85_encode(text, key, CURVE_KEY_BYTES);
    for (int i = 0; i < list->n; i++)
        if (strcmp(list->keys[i], text) == 0)
            return true;
    return false;
}

enum status curve_generate(struct curve_keys *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (zmq_curve_keypair(out->public_key, out->secret_key) != 0)
        return error_set(err, STATUS_UNSUPPORTED, "cannot make a key pair: %s",
                         zmq_strerror(errno));
    memcpy(out->server_key, out->public_key, sizeof(out->server_key));
    return STATUS_OK;
}

static enum status set_key(void *socket, int option, const char *name, const char *key,
                           struct error *err)
{
    if (zmq_setsockopt(socket, option, key, CURVE_KEY_CHARS + 1) != 0)
        return error_set(err, STATUS_INVALID, "cannot set the %s key of a socket: %s", name,
                         zmq_strerror(errno));
    return STATUS_OK;
}

enum status curve_set_server(void *socket, const struct curve_keys *keys, struct error *err)
{
    int on = 1;
    if (zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &on, sizeof(on)) != 0)
        return error_set(err, STATUS_UNSUPPORTED, "cannot use CURVE: %s", zmq_strerror(errno));
    return set_key(socket, ZMQ_CURVE_SECRETKEY, "secret", keys->secret_key, err);
}

enum status curve_set_client(void *socket, const struct curve_keys *keys, const char *server_key,
                             struct error *err)
{
    enum status st = check_key(server_key, err);
    if (st == STATUS_OK)
        st = set_key(socket, ZMQ_CURVE_SERVERKEY, "server", server_key, err);
    if (st == STATUS_OK)
        st = set_key(socket, ZMQ_CURVE_PUBLICKEY, "public", keys->public_key, err);
    if (st == STATUS_OK)
        st = set_key(socket, ZMQ_CURVE_SECRETKEY, "secret", keys->secret_key, err);
    return st;
}

static bool begins_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

/* "127." and then digits and dots up to the port: "tcp://127.evil.org:1" is another machine. */
static bool is_loopback_address(const char *host)
{
    size_t n = strspn(host, "0123456789.");
    return begins_with(host, "127.") && host[n] == ':';
}

bool curve_endpoint_is_local(const char *endpoint)
{
    /* "tcp://127.0.0.1:0;10.0.0.5:9300" names a source address first and goes to the second. */
    if (strchr(endpoint, ';'))
        return false;
    return begins_with(endpoint, "ipc://") || begins_with(endpoint, "inproc://") ||
           begins_with(endpoint, "tcp://localhost:") || begins_with(endpoint, "tcp://[::1]:") ||
           (begins_with(endpoint, "tcp://") && is_loopback_address(endpoint + strlen("tcp://")));
}
