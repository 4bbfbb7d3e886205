/*
 * status.h - the outcomes a function of this project can have.
 *
 * Every function that can fail returns one of these and fills a struct error (error.h) with the text.
 */
#ifndef MGPT_BASE_STATUS_H
#define MGPT_BASE_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_INVALID,     /* the input is wrong: a file, a request, an option */
    STATUS_UNSUPPORTED, /* the input is well formed, but asks for what is not offered */
    STATUS_NOT_FOUND,   /* a file, a tensor or an id that is not there */
    STATUS_NOMEM,       /* memory, or a pool of named size, is used up */
    STATUS_FULL,        /* a queue is at its limit; the same call may pass later */
    STATUS_IO,          /* the operating system refused: open, read, write, bind */
    STATUS_TIMEOUT,     /* a named limit of waiting passed */
    STATUS_LOST,        /* the peer of a link is gone */
    STATUS_CANCELED,    /* the caller, or the client, took the work back */
    STATUS_INTERNAL     /* a dependency broke its promise */
};

/* The lower-case name, for logs and machine output: "ok", "invalid", ... Never NULL. */
const char *status_name(enum status status);

#endif
