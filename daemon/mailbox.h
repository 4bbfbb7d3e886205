/*
 * mailbox.h - the one way threads of the daemon talk: messages put by any thread, taken by one.
 *
 * In:      heap messages from any thread.   Out: the same messages, in order, to the thread that
 * owns the box. Wakes:   mailbox_fd() is readable while a message waits, so a box can stand in
 * poll() or zmq_poll() beside sockets. Owns:    the messages until they are taken; a box whose last
 * reader closed it frees what arrives later. Threads: all functions may be called from any thread;
 * messages are taken by one thread at a time.
 */
#ifndef MGPT_DAEMON_MAILBOX_H
#define MGPT_DAEMON_MAILBOX_H

#include <stdbool.h>

#include "base/error.h"
#include "base/status.h"

/* The head of every message; the first field of the sender's own struct. */
struct mail {
    struct mail *next;
    void (*destroy)(struct mail *mail); /* frees the whole message */
};

struct mailbox;

/* n_max: messages that may wait (mailbox_post refuses more); 0 = no limit, for boxes whose senders
 * are bounded elsewhere. */
enum status mailbox_create(struct mailbox **out, int n_max, struct error *err);

/* One more holder: senders that outlive the reader keep the box alive. Returns its argument. */
struct mailbox *mailbox_hold(struct mailbox *box);

/* Gives one hold back; the last one frees the box and what still lies in it. NULL is fine. */
void mailbox_drop(struct mailbox *box);

/* The reader goes: what waits and what comes later is freed unread. */
void mailbox_close(struct mailbox *box);

/* Takes the message in every case. STATUS_FULL: n_max wait already.  STATUS_CANCELED: the box is
 * closed. */
enum status mailbox_post(struct mailbox *box, struct mail *mail);

/* The oldest message, now the caller's, or NULL. */
struct mail *mailbox_take(struct mailbox *box);

/* mailbox_take that waits up to wait_ms (-1 without limit); NULL when nothing came. */
struct mail *mailbox_wait(struct mailbox *box, int wait_ms);

/* Readable while a message waits; the box owns it. */
int mailbox_fd(const struct mailbox *box);

/* Ends one message. NULL is fine. */
void mail_destroy(struct mail *mail);

#endif
