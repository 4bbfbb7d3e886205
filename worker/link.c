/*
 * link.c - the parts of a hop that do not depend on the carrier.
 */
#include "worker/link.h"

#include <string.h>

#include "base/check.h"

void link_abandon(struct link *link)
{
    if (link && link->operations->abandon)
        link->operations->abandon(link);
}

void link_destroy(struct link *link)
{
    if (link)
        link->operations->destroy(link);
}

void link_set_epoch(struct link *link, uint64_t epoch)
{
    link->shape.epoch = epoch;
}

enum status link_greet(struct link *link, struct error *err)
{
    return link->operations->greet(link, err);
}

enum status link_poll_greeted(struct link *link, struct error *err)
{
    return link->operations->poll_greeted(link, err);
}

enum status link_send(struct link *link, uint64_t number, uint32_t n_tokens, const void *rows,
                      struct stream *stream, struct error *err)
{
    struct activation_header header = {.epoch = link->shape.epoch,
                                       .number = number,
                                       .n_tokens = n_tokens,
                                       .hidden = link->shape.hidden,
                                       .dtype = (uint16_t)link->shape.dtype};
    return link->operations->send(link, &header, rows, "", stream, err);
}

enum status link_send_failed(struct link *link, uint64_t number, enum status status,
                             const char *text, struct error *err)
{
    CHECK(status != STATUS_OK);
    struct activation_header header = {.epoch = link->shape.epoch,
                                       .number = number,
                                       .hidden = link->shape.hidden,
                                       .dtype = (uint16_t)link->shape.dtype,
                                       .flags = ACTIVATION_FAILED,
                                       .status = (uint32_t)status};
    return link->operations->send(link, &header, NULL, text, NULL, err);
}

enum status link_receive(struct link *link, struct link_frame *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    return link->operations->receive(link, out, err);
}

void link_frame_clear(struct link_frame *frame)
{
    frame_clear(&frame->frame);
    if (frame->holder)
        frame->holder->operations->release(frame->holder, frame->slot);
    memset(frame, 0, sizeof(*frame));
}

bool link_has_room(struct link *link)
{
    return !link->operations->has_room || link->operations->has_room(link);
}

enum status link_tend(struct link *link, struct error *err)
{
    return link->operations->tend ? link->operations->tend(link, err) : STATUS_OK;
}

void *link_poll_socket(struct link *link)
{
    return link->operations->poll_socket(link);
}

int link_wait_ms(struct link *link, int wait_max)
{
    return link->operations->wait_ms ? link->operations->wait_ms(link, wait_max) : wait_max;
}
