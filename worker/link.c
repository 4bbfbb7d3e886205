/*
 * link.c - the parts of a hop that do not depend on the carrier.
 */
#include "worker/link.h"

#include <string.h>

#include "base/check.h"

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
    memset(frame, 0, sizeof(*frame));
}

void *link_poll_socket(struct link *link)
{
    return link->operations->poll_socket(link);
}
