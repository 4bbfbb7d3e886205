/*
 * session.h - what a command works with: the model folder, and an engine of its own while it needs
 * one.
 */
#ifndef MGPT_DAEMON_CLI_SESSION_H
#define MGPT_DAEMON_CLI_SESSION_H

#include <jansson.h>

#include "daemon/engine_client.h"
#include "daemon/served_model.h"

enum {
    SESSION_READY_WAIT_MS = 600 * 1000,
    SESSION_INPUT_BYTES_MAX = 64 << 20,
    SESSION_IDS_MAX = 1 << 22
};

struct session {
    struct served_model *model;
    struct engine *engine;
    struct engine_client client;
};

/* Starts the engine and waits until its workers are loaded; --device cuda is refused here. */
enum status session_start(struct session *session, const struct engine_options *options,
                          struct error *err);

/* engine_options.picture_pixels for pictures of one size; 0 for 0 x 0. */
int session_pixels(int width, int height);

/* Ends the engine and the model. A zeroed session is fine. */
void session_end(struct session *session);

struct settings;

/*
 * The prompt of the file --conversation names; starts an engine with a codec worker when it has
 * pictures and none runs.
 */
enum status session_conversation_prompt(struct session *session, const struct settings *settings,
                                        struct ids *out, struct error *err);

/* Ends the session; 0, or 1 after "mgpt: TEXT" on stderr. */
int session_finish(struct session *session, enum status status, const struct error *err);

/* All of stdin; the caller frees *text, which ends with a NUL. */
enum status session_read_stdin(char **text, size_t *bytes, struct error *err);

/* Appends ids out of JSON: a list, or an object with the key "ids". `name` stands for the input in
 * error texts. */
enum status session_parse_ids(struct ids *out, const char *text, size_t bytes, const char *name,
                              struct error *err);
enum status session_read_ids(struct ids *out, const char *path, struct error *err);

/* A list of ids as JSON; NULL: no memory. */
json_t *session_ids_json(const int32_t *ids, size_t n);

/* Prints one JSON value and a line end on stdout; takes it. STATUS_IO: stdout is closed or full. */
enum status session_print_json(json_t *value, struct error *err);

#endif
