/*
 * mailbox.c - a locked list and an eventfd that is readable while the list is not empty.
 */
#include "daemon/mailbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"

struct mailbox {
    pthread_mutex_t lock;
    struct mail *first, *last;
    int n, n_max;
    int n_holders;
    bool closed;
    int event_fd;
};

void mail_destroy(struct mail *mail)
{
    if (mail)
        mail->destroy(mail);
}

enum status mailbox_create(struct mailbox **out, int n_max, struct error *err)
{
    *out = NULL;
    struct mailbox *box = calloc(1, sizeof(*box));
    if (!box)
        return error_set(err, STATUS_NOMEM, "cannot allocate a mailbox");
    box->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (box->event_fd < 0) {
        free(box);
        return error_set_errno(err, STATUS_IO, errno,
                               "cannot make the event descriptor of a mailbox");
    }
    pthread_mutex_init(&box->lock, NULL);
    box->n_max = n_max;
    box->n_holders = 1;
    *out = box;
    return STATUS_OK;
}

struct mailbox *mailbox_hold(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->n_holders++;
    pthread_mutex_unlock(&box->lock);
    return box;
}

static void destroy_list(struct mail *mail)
{
    while (mail) {
        struct mail *next = mail->next;
        mail_destroy(mail);
        mail = next;
    }
}

void mailbox_drop(struct mailbox *box)
{
    if (!box)
        return;
    pthread_mutex_lock(&box->lock);
    int left = --box->n_holders;
    pthread_mutex_unlock(&box->lock);
    CHECK(left >= 0);
    if (left > 0)
        return;
    destroy_list(box->first);
    close(box->event_fd);
    pthread_mutex_destroy(&box->lock);
    free(box);
}

void mailbox_close(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct mail *waiting = box->first;
    box->first = box->last = NULL;
    box->n = 0;
    box->closed = true;
    pthread_mutex_unlock(&box->lock);
    destroy_list(waiting);
}

enum status mailbox_post(struct mailbox *box, struct mail *mail)
{
    enum status st = STATUS_OK;
    mail->next = NULL;
    pthread_mutex_lock(&box->lock);
    if (box->closed) {
        st = STATUS_CANCELED;
    } else if (box->n_max > 0 && box->n >= box->n_max) {
        st = STATUS_FULL;
    } else {
        if (box->last)
            box->last->next = mail;
        else
            box->first = mail;
        box->last = mail;
        box->n++;
        /* The counter cannot overflow: it is set to zero whenever the list runs empty. */
        uint64_t one = 1;
        CHECK(write(box->event_fd, &one, sizeof(one)) == sizeof(one));
    }
    pthread_mutex_unlock(&box->lock);
    if (st != STATUS_OK)
        mail_destroy(mail);
    return st;
}

struct mail *mailbox_take(struct mailbox *box)
{
    pthread_mutex_lock(&box->lock);
    struct mail *mail = box->first;
    if (mail) {
        box->first = mail->next;
        box->n--;
    }
    if (!box->first) {
        box->last = NULL;
        uint64_t count;
        if (read(box->event_fd, &count, sizeof(count)) < 0)
            CHECK(errno == EAGAIN);
    }
    pthread_mutex_unlock(&box->lock);
    if (mail)
        mail->next = NULL;
    return mail;
}

struct mail *mailbox_wait(struct mailbox *box, int wait_ms)
{
    struct mail *mail = mailbox_take(box);
    if (mail)
        return mail;
    struct pollfd ready = {.fd = box->event_fd, .events = POLLIN};
    if (poll(&ready, 1, wait_ms) <= 0)
        return NULL;
    return mailbox_take(box);
}

int mailbox_fd(const struct mailbox *box)
{
    return box->event_fd;
}
