/*
 * engine_client.c - submit, wait, hand out.
 */
#include "daemon/engine_client.h"

#include <string.h>

#include "model/unirep.h"

enum status engine_client_init(struct engine_client *out, struct engine *engine, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->engine = engine;
    return mailbox_create(&out->box, 0, err);
}

void engine_client_fini(struct engine_client *client)
{
    if (client->box)
        mailbox_close(client->box);
    mailbox_drop(client->box);
    memset(client, 0, sizeof(*client));
}

static struct engine_event *next_event(struct engine_client *client, uint64_t id)
{
    bool canceled = false;
    for (;;) {
        struct engine_event *event =
            (struct engine_event *)(void *)mailbox_wait(client->box, ENGINE_CLIENT_LOOK_MS);
        if (event && event->request == id)
            return event;
        mail_destroy(event ? &event->mail : NULL);
        if (!canceled && client->wants_more && !client->wants_more(client->context)) {
            engine_cancel(client->engine, id);
            canceled = true;
        }
    }
}

enum status engine_client_run(struct engine_client *client, const struct engine_request *request,
                              struct engine_event **event, struct error *err)
{
    uint64_t id;
    *event = NULL;
    enum status st = engine_submit(client->engine, request, 1, client->box, &id, err);
    if (st != STATUS_OK)
        return st;
    for (;;) {
        struct engine_event *next = next_event(client, id);
        if (next->kind == ENGINE_EVENT_FINISHED) {
            *event = next;
            return STATUS_OK;
        }
        if (next->kind == ENGINE_EVENT_FAILED) {
            st = error_set(err, next->error.code, "%s", next->error.text);
            mail_destroy(&next->mail);
            return st;
        }
        if (client->on_event)
            client->on_event(client->context, next);
        mail_destroy(&next->mail);
    }
}

enum status engine_client_encode(struct engine_client *client, const struct picture *rgb,
                                 struct ids *codes, struct error *err)
{
    struct engine_request request = {
        .work = ENGINE_ENCODE, .width = rgb->width, .height = rgb->height, .rgb = rgb->pixels};
    struct engine_event *event;
    if (rgb->channels != 3)
        return error_set(err, STATUS_INVALID, "a picture of %d channels, expected 3",
                         rgb->channels);
    enum status st = engine_client_run(client, &request, &event, err);
    if (st != STATUS_OK)
        return st;
    st = ids_append(codes, event->ids, (size_t)event->n_ids, err);
    mail_destroy(&event->mail);
    return st;
}

enum status engine_client_decode(struct engine_client *client, struct picture_size size,
                                 const struct ids *codes, struct picture **out, struct error *err)
{
    struct engine_request request = {
        .work = ENGINE_DECODE, .width = size.width, .height = size.height, .codes = codes->ids};
    struct engine_event *event;
    *out = NULL;
    if ((int64_t)codes->n != unirep_n_codes(size))
        return error_set(err, STATUS_INVALID, "%zu codes for a picture of %dx%d", codes->n,
                         size.width, size.height);
    enum status st = engine_client_run(client, &request, &event, err);
    if (st != STATUS_OK)
        return st;
    st = picture_create(out, size.width, size.height, 3, err);
    if (st == STATUS_OK)
        memcpy((*out)->pixels, event->rgb, picture_bytes(*out));
    mail_destroy(&event->mail);
    return st;
}
