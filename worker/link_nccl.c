/*
 * link_nccl.c - slots, the order of payloads, and what happens when one does not come.
 */
#include "worker/link_nccl.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/side_queue.h"
#include "worker/communicator.h"
#include "worker/link_zmq.h"

enum {
    ENTRIES_MAX = 2 * LINK_NCCL_SLOTS, /* frames taken before the stage wants them */
    PATTERN_BYTES = 256,
    NO_SLOT = -1
};

static const int64_t NS_IN_MS = 1000 * 1000, NS_IN_US = 1000;

_Static_assert((int)LINK_NCCL_SLOTS <= (int)SIDE_QUEUE_MARKS, "a mark for each slot");

enum state {
    STATE_FRAMES,  /* no communicator: rows come in the frames */
    STATE_FORMING, /* the communicator is not there yet */
    STATE_PROVING, /* the pattern is on its way */
    STATE_STANDING,
    STATE_BROKEN
};

/* A frame that came and was not handed over yet. */
struct entry {
    struct link_frame frame;
    int slot; /* NO_SLOT: not queued */
    int64_t queued_ns;
};

struct link_nccl {
    struct link link;    /* first */
    struct link *frames; /* of link_zmq; owned */
    bool is_downstream;
    struct link_nccl_options options;
    struct side_queue *queue;
    struct communicator *communicator;
    void *slots[LINK_NCCL_SLOTS];
    bool is_used[LINK_NCCL_SLOTS];
    enum state state;
    int64_t form_end_ns;
    struct error why; /* BROKEN */
    bool is_told;     /* BROKEN: link_tend() said so */
    bool is_stuck;    /* an abort did not come back: device memory is left to it */
    uint64_t n_rows;  /* payloads sent, or queued for receiving, since the communicator stands */
    struct entry entries[ENTRIES_MAX]; /* a ring */
    int first, n;
};

static struct link_nccl *self(struct link *link)
{
    return (struct link_nccl *)link;
}

/* The epoch is set from outside. */
static struct link *frames_of(struct link_nccl *hop)
{
    hop->frames->shape = hop->link.shape;
    return hop->frames;
}

size_t link_nccl_bytes(const struct link_nccl_options *options)
{
    return LINK_NCCL_SLOTS * options->rows_bytes_max;
}

/* ---- slots ---- */

static int find_slot(const struct link_nccl *hop)
{
    for (int i = 0; i < LINK_NCCL_SLOTS; i++)
        if (!hop->is_used[i])
            return i;
    return NO_SLOT;
}

static void release(struct link *link, int slot)
{
    self(link)->is_used[slot] = false;
}

static enum status make_slots(struct link_nccl *hop, struct error *err)
{
    struct stream *stream = hop->options.stream;
    enum status st = hop->queue ? STATUS_OK : side_queue_create(&hop->queue, stream, err);
    for (int i = 0; st == STATUS_OK && i < LINK_NCCL_SLOTS; i++)
        if (!hop->slots[i])
            st = stream_alloc(stream, &hop->slots[i], hop->options.rows_bytes_max, err);
    return st == STATUS_OK ? st : error_wrap(err, st, "memory of a link");
}

/* ---- the end of a communicator ---- */

/* Nothing of it runs afterwards; what it had in slots is nobody's any more. */
static void end_communicator(struct link_nccl *hop)
{
    struct error err;
    if (communicator_abort(hop->communicator, &err) != STATUS_OK) {
        log_error("worker", "link is stuck reason=\"%s\"", err.text);
        hop->is_stuck = true;
    }
    hop->communicator = NULL;
    hop->n_rows = 0;
    for (int i = 0; i < hop->n; i++) {
        struct entry *entry = &hop->entries[(hop->first + i) % ENTRIES_MAX];
        if (entry->slot != NO_SLOT)
            hop->is_used[entry->slot] = false;
        entry->slot = NO_SLOT;
    }
    if (!hop->is_downstream)
        memset(hop->is_used, 0, sizeof(hop->is_used));
}

static void break_hop(struct link_nccl *hop, const struct error *why, bool tell_peer)
{
    if (hop->state == STATE_BROKEN || hop->state == STATE_FRAMES)
        return;
    bool was_asked = hop->is_downstream && hop->state < STATE_STANDING;
    hop->state = STATE_BROKEN;
    hop->is_told = false;
    hop->why = *why;
    end_communicator(hop);
    if (was_asked)
        link_zmq_answer(frames_of(hop), STATUS_LOST, why->text, NULL);
    else if (tell_peer)
        link_zmq_tell_loss(frames_of(hop), why->text, NULL);
}

static void take_loss(void *context, const char *text)
{
    struct error why;
    error_set(&why, STATUS_LOST, "the other end: %s", text);
    break_hop(context, &why, false);
}

static void abandon(struct link *link)
{
    communicator_begin_abort(self(link)->communicator);
}

static void destroy(struct link *link)
{
    struct link_nccl *hop = self(link);
    end_communicator(hop);
    for (int i = 0; i < hop->n; i++)
        frame_clear(&hop->entries[(hop->first + i) % ENTRIES_MAX].frame.frame);
    if (!hop->is_stuck) {
        for (int i = 0; i < LINK_NCCL_SLOTS; i++)
            stream_free(hop->options.stream, hop->slots[i], hop->options.rows_bytes_max);
        side_queue_destroy(hop->queue);
    }
    link_destroy(hop->frames);
    free(hop);
}

/* ---- forming ---- */

static void fill_pattern(unsigned char pattern[PATTERN_BYTES])
{
    for (int i = 0; i < PATTERN_BYTES; i++)
        pattern[i] = (unsigned char)(i * 7 + 1);
}

/* Slot 0 is free: nothing else goes on while a hop forms. */
static enum status prove(struct link_nccl *hop, struct error *err)
{
    unsigned char pattern[PATTERN_BYTES];
    enum status st;
    fill_pattern(pattern);
    if (!hop->is_downstream)
        stream_upload(hop->options.stream, hop->slots[0], pattern, PATTERN_BYTES);
    st = side_queue_follow(hop->queue, err); /* new memory is zeroed in the stream */
    if (st == STATUS_OK && hop->is_downstream)
        st = communicator_receive(hop->communicator, hop->slots[0], PATTERN_BYTES, err);
    else if (st == STATUS_OK)
        st = communicator_send(hop->communicator, hop->slots[0], PATTERN_BYTES, err);
    return st == STATUS_OK ? side_queue_mark(hop->queue, 0, err) : st;
}

static enum status check_pattern(struct link_nccl *hop, struct error *err)
{
    unsigned char expected[PATTERN_BYTES], pattern[PATTERN_BYTES];
    fill_pattern(expected);
    stream_download(hop->options.stream, pattern, hop->slots[0], PATTERN_BYTES);
    if (memcmp(pattern, expected, PATTERN_BYTES) != 0)
        return error_set(err, STATUS_LOST, "NCCL brought other bytes than were sent");
    return STATUS_OK;
}

/* One step of forming. STATUS_TIMEOUT: under way. */
static enum status form(struct link_nccl *hop, struct error *err)
{
    enum status st = communicator_poll(hop->communicator, err);
    if (st == STATUS_OK && hop->state == STATE_FORMING) {
        st = prove(hop, err);
        hop->state = STATE_PROVING;
    }
    if (st == STATUS_OK)
        st = side_queue_passed(hop->queue, 0, err);
    if (st == STATUS_OK && hop->is_downstream)
        st = check_pattern(hop, err);
    if (st == STATUS_TIMEOUT && clock_monotonic_ns() > hop->form_end_ns)
        st = error_set(err, STATUS_LOST,
                       "NCCL did not form a communicator of two ranks in %d ms (NCCL_DEBUG=INFO "
                       "tells more)",
                       LINK_NCCL_FORM_MS);
    return st;
}

static enum status begin_to_form(struct link_nccl *hop, const struct communicator_offer *offer,
                                 struct error *err)
{
    int rank = hop->is_downstream ? 1 : 0;
    enum status st = make_slots(hop, err);
    if (st == STATUS_OK)
        st = communicator_open(&hop->communicator, offer, rank, hop->queue, err);
    if (st != STATUS_OK)
        return st;
    hop->state = STATE_FORMING;
    hop->form_end_ns = clock_monotonic_ns() + LINK_NCCL_FORM_MS * NS_IN_MS;
    return STATUS_OK;
}

static enum status check_offer(const struct communicator_offer *offer, size_t offer_bytes,
                               struct error *err)
{
    uint32_t version = communicator_version(err);
    if (version == 0)
        return STATUS_UNSUPPORTED;
    if (offer_bytes != sizeof(*offer))
        return error_set(err, STATUS_INVALID, "an offer of NCCL has %zu bytes, expected %zu",
                         offer_bytes, sizeof(*offer));
    if (offer->version != version)
        return error_set(err, STATUS_INVALID, "NCCL %u there, %u here", offer->version, version);
    return STATUS_OK;
}

/* Whoever greets is the new peer: what the last one left is gone. */
static enum status take_offer(void *context, const void *bytes, size_t offer_bytes,
                              struct error *err)
{
    struct link_nccl *hop = context;
    struct communicator_offer offer;
    end_communicator(hop);
    hop->state = STATE_FRAMES;
    if (offer_bytes == 0)
        return STATUS_OK;
    memset(&offer, 0, sizeof(offer));
    memcpy(&offer, bytes, offer_bytes < sizeof(offer) ? offer_bytes : sizeof(offer));
    enum status st = check_offer(&offer, offer_bytes, err);
    return st == STATUS_OK ? begin_to_form(hop, &offer, err) : st;
}

static enum status greet(struct link *link, struct error *err)
{
    struct link_nccl *hop = self(link);
    struct communicator_offer offer;
    enum status st = communicator_make_offer(&offer, err);
    if (st == STATUS_OK)
        st = begin_to_form(hop, &offer, err);
    if (st == STATUS_OK)
        st = link_zmq_greet_with(frames_of(hop), &offer, sizeof(offer), err);
    return st;
}

static enum status poll_greeted(struct link *link, struct error *err)
{
    struct link_nccl *hop = self(link);
    enum status st = link_poll_greeted(frames_of(hop), err);
    if (st == STATUS_TIMEOUT) { /* the answer comes when the pattern has passed */
        enum status formed = form(hop, err);
        return formed == STATUS_OK ? STATUS_TIMEOUT : formed;
    }
    if (st == STATUS_OK)
        hop->state = STATE_STANDING;
    return st;
}

/* ---- sending ---- */

/* Slots whose rows have gone. */
static enum status free_sent_slots(struct link_nccl *hop, struct error *err)
{
    for (int i = 0; i < LINK_NCCL_SLOTS; i++) {
        enum status st = hop->is_used[i] ? side_queue_passed(hop->queue, i, err) : STATUS_TIMEOUT;
        if (st == STATUS_OK)
            hop->is_used[i] = false;
        else if (st != STATUS_TIMEOUT)
            return st;
    }
    return STATUS_OK;
}

static enum status queue_rows(struct link_nccl *hop, const struct activation_header *header,
                              const void *rows, int slot, struct stream *stream, struct error *err)
{
    size_t n_bytes =
        activation_bytes(header->n_tokens, header->hidden, header->dtype) - sizeof(*header);
    CHECK(n_bytes <= hop->options.rows_bytes_max);
    stream_copy(stream, hop->slots[slot], rows, n_bytes);
    enum status st = side_queue_follow(hop->queue, err);
    if (st == STATUS_OK)
        st = communicator_send(hop->communicator, hop->slots[slot], n_bytes, err);
    return st == STATUS_OK ? side_queue_mark(hop->queue, slot, err) : st;
}

static enum status send_failed(struct link_nccl *hop, const struct activation_header *header,
                               enum status status, const char *text, struct error *err)
{
    return link_send_failed(frames_of(hop), header->number, status, text, err);
}

/* Instead of rows that cannot go. */
static enum status send_loss(struct link_nccl *hop, const struct activation_header *header,
                             struct error *err)
{
    send_failed(hop, header, STATUS_LOST, hop->why.text, NULL);
    return error_set(err, STATUS_LOST, "%s", hop->why.text);
}

static enum status send_activations(struct link *link, const struct activation_header *header,
                                    const void *rows, const char *text, struct stream *stream,
                                    struct error *err)
{
    struct link_nccl *hop = self(link);
    struct error why;
    if (!rows)
        return send_failed(hop, header, (enum status)header->status, text, err);
    if (header->n_tokens == 0)
        return link_send(frames_of(hop), header->number, 0, rows, stream, err);
    if (hop->state == STATE_BROKEN)
        return send_loss(hop, header, err);
    CHECK(hop->state == STATE_STANDING);
    enum status st = free_sent_slots(hop, &why);
    int slot = find_slot(hop);
    if (st == STATUS_OK && slot == NO_SLOT)
        return error_set(err, STATUS_FULL, "%d payloads are on their way to the next stage",
                         LINK_NCCL_SLOTS);
    if (st == STATUS_OK)
        st = queue_rows(hop, header, rows, slot, stream, &why);
    if (st != STATUS_OK) {
        break_hop(hop, &why, true);
        return send_loss(hop, header, err);
    }
    hop->is_used[slot] = true;
    st = link_zmq_announce(frames_of(hop), header->number, header->n_tokens, hop->n_rows++, err);
    if (st != STATUS_OK)
        break_hop(hop, err, true);
    return st;
}

static bool has_room(struct link *link)
{
    struct link_nccl *hop = self(link);
    if (hop->state != STATE_STANDING)
        return true; /* it fails, but it does not wait */
    free_sent_slots(hop, NULL);
    return find_slot(hop) != NO_SLOT;
}

/* ---- receiving ---- */

static struct entry *entry_at(struct link_nccl *hop, int i)
{
    return &hop->entries[(hop->first + i) % ENTRIES_MAX];
}

/* The ordinal behind the header of an announcement. */
static enum status read_ordinal(const struct link_frame *frame, uint64_t *ordinal,
                                struct error *err)
{
    const size_t expected = sizeof(struct activation_header) + sizeof(*ordinal);
    if (frame->frame.n_bytes != expected)
        return error_set(err, STATUS_LOST, "an announcement of %zu bytes, expected %zu",
                         frame->frame.n_bytes, expected);
    memcpy(ordinal, (const char *)frame->frame.bytes + sizeof(struct activation_header),
           sizeof(*ordinal));
    return STATUS_OK;
}

/* Queues the receiving of announced rows. */
static enum status receive_rows(struct link_nccl *hop, struct entry *entry, int slot,
                                struct error *err)
{
    const struct activation_header *header = &entry->frame.header;
    size_t n_bytes =
        activation_bytes(header->n_tokens, header->hidden, header->dtype) - sizeof(*header);
    uint64_t ordinal = 0;
    enum status st = read_ordinal(&entry->frame, &ordinal, err);
    if (st == STATUS_OK && (ordinal != hop->n_rows || n_bytes > hop->options.rows_bytes_max))
        st = error_set(err, STATUS_LOST,
                       "payload %llu of %zu bytes was announced, expected payload %llu of at most "
                       "%zu",
                       (unsigned long long)ordinal, n_bytes, (unsigned long long)hop->n_rows,
                       hop->options.rows_bytes_max);
    if (st == STATUS_OK)
        st = side_queue_follow(hop->queue, err); /* whatever still reads the slot */
    if (st == STATUS_OK)
        st = communicator_receive(hop->communicator, hop->slots[slot], n_bytes, err);
    if (st == STATUS_OK)
        st = side_queue_mark(hop->queue, slot, err);
    if (st != STATUS_OK)
        return st;
    hop->n_rows++;
    hop->is_used[slot] = true;
    entry->slot = slot;
    entry->queued_ns = clock_monotonic_ns();
    return STATUS_OK;
}

static bool is_beside(const struct entry *entry)
{
    return entry->frame.header.flags & ACTIVATION_BESIDE;
}

/* What was announced and has a place is queued, in order. */
static void receive_announced(struct link_nccl *hop)
{
    struct error why;
    for (int i = 0; i < hop->n && hop->state == STATE_STANDING; i++) {
        struct entry *entry = entry_at(hop, i);
        int slot = find_slot(hop);
        if (!is_beside(entry) || entry->slot != NO_SLOT)
            continue;
        if (slot == NO_SLOT)
            return;
        if (receive_rows(hop, entry, slot, &why) != STATUS_OK)
            break_hop(hop, &why, true);
    }
}

/* Takes frames while there is room for them; a malformed one is reported and gone. */
static enum status take_frames(struct link_nccl *hop, struct error *err)
{
    while (hop->n < ENTRIES_MAX) {
        struct entry *entry = entry_at(hop, hop->n);
        enum status st = link_receive(frames_of(hop), &entry->frame, err);
        if (st != STATUS_OK)
            return st;
        entry->slot = NO_SLOT;
        hop->n++;
    }
    return STATUS_TIMEOUT;
}

/* The pattern has passed: the greeting can be answered. */
static void answer_offer(struct link_nccl *hop)
{
    struct error err;
    if (hop->state != STATE_FORMING && hop->state != STATE_PROVING)
        return;
    enum status st = form(hop, &err);
    if (st == STATUS_OK) {
        hop->state = STATE_STANDING;
        st = link_zmq_answer(frames_of(hop), STATUS_OK, "", &err);
    }
    if (st != STATUS_OK && st != STATUS_TIMEOUT)
        break_hop(hop, &err, true);
}

/* Moves the first entry to the caller, who owns it then; one of an epoch that is over ends here. */
static enum status hand_over(struct link_nccl *hop, struct link_frame *out, struct error *err)
{
    int slot = entry_at(hop, 0)->slot;
    *out = entry_at(hop, 0)->frame;
    hop->first = (hop->first + 1) % ENTRIES_MAX;
    hop->n--;
    uint64_t expected = hop->link.shape.epoch, number = out->header.number,
             epoch = out->header.epoch;
    if (epoch == expected)
        return STATUS_OK;
    if (slot != NO_SLOT)
        hop->is_used[slot] = false;
    link_frame_clear(out);
    return error_set(
        err, STATUS_INVALID, "activations of plan %llu are of epoch %llu, expected %llu",
        (unsigned long long)number, (unsigned long long)epoch, (unsigned long long)expected);
}

/* Of an announcement only the header is of use any more. */
static void drop_announcement(struct link_frame *frame)
{
    frame_clear(&frame->frame);
    memset(&frame->frame, 0, sizeof(frame->frame));
    frame->header.flags = 0;
    frame->rows = NULL;
}

/* Of rows that will never come: a failed frame in their place. */
static enum status hand_over_loss(struct link_nccl *hop, struct link_frame *out, struct error *err)
{
    enum status st = hand_over(hop, out, err);
    if (st != STATUS_OK)
        return st;
    drop_announcement(out);
    out->header.flags = ACTIVATION_FAILED;
    out->header.status = STATUS_LOST;
    out->header.n_tokens = 0;
    memcpy(out->text, hop->why.text, sizeof(out->text));
    return STATUS_OK;
}

static enum status hand_over_rows(struct link_nccl *hop, struct link_frame *out, struct error *err)
{
    int slot = entry_at(hop, 0)->slot;
    enum status st = hand_over(hop, out, err);
    if (st != STATUS_OK)
        return st;
    drop_announcement(out);
    out->rows = hop->slots[slot];
    out->on_device = true;
    out->holder = &hop->link;
    out->slot = slot;
    return STATUS_OK;
}

/* Have the rows of the first entry come? STATUS_TIMEOUT: not yet. */
static enum status look_at_rows(struct link_nccl *hop, const struct entry *entry, struct error *err)
{
    int limit_ms = hop->options.rows_ms ? hop->options.rows_ms : LINK_NCCL_ROWS_MS;
    if (entry->slot == NO_SLOT)
        return STATUS_TIMEOUT;
    enum status st = side_queue_passed(hop->queue, entry->slot, err);
    if (st != STATUS_TIMEOUT)
        return st;
    st = communicator_poll(hop->communicator, err);
    if (st == STATUS_LOST)
        return st;
    if (clock_monotonic_ns() - entry->queued_ns > limit_ms * NS_IN_MS)
        return error_set(err, STATUS_LOST, "NCCL did not bring the rows of plan %llu in %d ms",
                         (unsigned long long)entry->frame.header.number, limit_ms);
    return STATUS_TIMEOUT;
}

static enum status receive(struct link *link, struct link_frame *out, struct error *err)
{
    struct link_nccl *hop = self(link);
    struct error why;
    enum status st = take_frames(hop, err);
    answer_offer(hop);
    receive_announced(hop);
    if (st != STATUS_TIMEOUT)
        return st;
    if (hop->n == 0)
        return STATUS_TIMEOUT;
    const struct entry *entry = entry_at(hop, 0);
    if (!is_beside(entry))
        return hand_over(hop, out, err);
    if (hop->state == STATE_STANDING) {
        st = look_at_rows(hop, entry, &why);
        if (st == STATUS_TIMEOUT)
            return st;
        if (st == STATUS_OK)
            return hand_over_rows(hop, out, err);
        break_hop(hop, &why, true);
    }
    return hand_over_loss(hop, out, err);
}

/* ---- either end ---- */

static enum status tend(struct link *link, struct error *err)
{
    struct link_nccl *hop = self(link);
    struct error why;
    if (hop->is_downstream) {
        if (take_frames(hop, &why) == STATUS_INVALID)
            log_warn("worker", "dropped a frame reason=\"%s\"", why.text);
        receive_announced(hop);
    } else if (hop->state == STATE_STANDING) {
        link_zmq_take_notices(frames_of(hop));
        enum status st = hop->state == STATE_STANDING ? free_sent_slots(hop, &why) : STATUS_OK;
        if (st == STATUS_OK && hop->state == STATE_STANDING)
            st = communicator_poll(hop->communicator, &why);
        if (st != STATUS_OK && st != STATUS_TIMEOUT)
            break_hop(hop, &why, true);
    }
    if (hop->is_stuck)
        return error_set(err, STATUS_INTERNAL, "NCCL does not let go of a lost link");
    if (hop->state != STATE_BROKEN || hop->is_told)
        return STATUS_OK;
    hop->is_told = true;
    return error_set(err, STATUS_LOST, "%s", hop->why.text);
}

static int wait_ms(struct link *link, int wait_max)
{
    struct link_nccl *hop = self(link);
    int wait = wait_max < LINK_POLL_MS ? wait_max : LINK_POLL_MS;
    if (hop->state == STATE_FORMING || hop->state == STATE_PROVING)
        return wait;
    if (hop->is_downstream) {
        const struct entry *entry = entry_at(hop, 0);
        if (hop->n == 0 || entry->slot == NO_SLOT)
            return wait_max;
        return clock_monotonic_ns() - entry->queued_ns < LINK_NCCL_SPIN_US * NS_IN_US ? 0 : wait;
    }
    for (int i = 0; i < LINK_NCCL_SLOTS; i++)
        if (hop->is_used[i])
            return wait;
    return wait_max;
}

static void *poll_socket(struct link *link)
{
    return link_poll_socket(self(link)->frames);
}

static const struct link_operations *operations(void)
{
    static const struct link_operations table = {
        .destroy = destroy,
        .greet = greet,
        .poll_greeted = poll_greeted,
        .send = send_activations,
        .receive = receive,
        .poll_socket = poll_socket,
        .has_room = has_room,
        .tend = tend,
        .wait_ms = wait_ms,
        .release = release,
        .abandon = abandon,
    };
    return &table;
}

static enum status create(struct link **out, struct link *take_frames_of, bool is_downstream,
                          const struct link_nccl_options *options, struct error *err)
{
    *out = NULL;
    struct link_nccl *hop = calloc(1, sizeof(*hop));
    if (!hop) {
        link_destroy(take_frames_of);
        return error_set(err, STATUS_NOMEM, "cannot allocate a link");
    }
    hop->link = *take_frames_of;
    hop->link.operations = operations();
    hop->link.hears_notices = !is_downstream;
    hop->frames = take_frames_of;
    hop->is_downstream = is_downstream;
    hop->options = *options;
    if (hop->options.rows_bytes_max < PATTERN_BYTES)
        hop->options.rows_bytes_max = PATTERN_BYTES;
    link_zmq_set_rider(hop->frames, &(struct link_rider){hop, take_offer, take_loss});
    enum status st = make_slots(hop, err);
    if (st != STATUS_OK) {
        destroy(&hop->link);
        return st;
    }
    *out = &hop->link;
    return STATUS_OK;
}

enum status link_nccl_listen(struct link **out, struct link *take_frames,
                             const struct link_nccl_options *options, struct error *err)
{
    return create(out, take_frames, true, options, err);
}

enum status link_nccl_connect(struct link **out, struct link *take_frames,
                              const struct link_nccl_options *options, struct error *err)
{
    return create(out, take_frames, false, options, err);
}
