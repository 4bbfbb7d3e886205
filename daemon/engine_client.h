/*
 * engine_client.h - one request at a time, waited for: for command lines and for threads that serve
 * one client.
 *
 * Threads: a client belongs to one thread; any number of clients may use one engine.
 */
#ifndef MGPT_DAEMON_ENGINE_CLIENT_H
#define MGPT_DAEMON_ENGINE_CLIENT_H

#include "daemon/engine.h"
#include "model/picture.h"

enum { ENGINE_CLIENT_LOOK_MS = 200 }; /* between two calls of wants_more */

struct engine_client {
    struct engine *engine;
    struct mailbox *box;
    void *context;
    bool (*wants_more)(void *context); /* NULL: always; false cancels the request */
    void (*on_event)(void *context,
                     const struct engine_event *event); /* NULL; STARTED and PROGRESS */
};

/* The hooks are NULL afterwards. End it with engine_client_fini(). */
enum status engine_client_init(struct engine_client *out, struct engine *engine, struct error *err);
void engine_client_fini(struct engine_client *client); /* a zeroed one is fine */

/*
 * Hands a request over and waits for its end. The caller ends *event with
 * mail_destroy(&event->mail).
 *
 * Returns the request's own error when it failed, STATUS_CANCELED when wants_more said no; *event
 * is NULL then.
 */
enum status engine_client_run(struct engine_client *client, const struct engine_request *request,
                              struct engine_event **event, struct error *err);

/* The codes of an RGB picture, [height/16, width/16], appended to *codes. */
enum status engine_client_encode(struct engine_client *client, const struct picture *rgb,
                                 struct ids *codes, struct error *err);

/* The RGB picture of VQ codes. The caller ends *out with picture_destroy(). */
enum status engine_client_decode(struct engine_client *client, struct picture_size size,
                                 const struct ids *codes, struct picture **out, struct error *err);

#endif
