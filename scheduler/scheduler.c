/*
 * scheduler.c - the doors of the scheduler: submit, cancel, plans, answers, events; see scheduler.h
 * and state.h.
 *
 * Life of a request object: made by submit; found by its id until its last event is taken; freed
 * when no plan in flight names it any more. An answer for a request that ended meanwhile is dropped
 * here.
 */
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "scheduler/state.h"

enum { BUCKETS_MAX = 1 << 16, ROWS_LEAST = 16 };
static const double WAY_GUESS_NS =
    3e5; /* until measured: a few hops and a turn through the daemon */

void scheduler_options_init(struct scheduler_options *options)
{
    *options = (struct scheduler_options){
        .epoch = 1, .queue_max = 256, .running_max = 256, .rows_max = 512, .prefill_delay = 0.5};
}

/* ---- lists ---- */

void state_list_insert_before(struct list *list, struct request *place, struct request *r)
{
    r->by_place.next = place;
    r->by_place.previous = place ? place->by_place.previous : list->last;
    if (r->by_place.previous)
        r->by_place.previous->by_place.next = r;
    else
        list->first = r;
    if (place)
        place->by_place.previous = r;
    else
        list->last = r;
}

void state_list_append(struct list *list, struct request *r)
{
    state_list_insert_before(list, NULL, r);
}

void state_list_remove(struct list *list, struct request *r)
{
    if (r->by_place.previous)
        r->by_place.previous->by_place.next = r->by_place.next;
    else
        list->first = r->by_place.next;
    if (r->by_place.next)
        r->by_place.next->by_place.previous = r->by_place.previous;
    else
        list->last = r->by_place.previous;
    r->by_place = (struct link){NULL, NULL};
}

/* ---- creation ---- */

static enum status check_options(const struct scheduler_options *o, struct error *err)
{
    const struct {
        const char *name;
        int value, least, most;
    } ranges[] = {
        {"stages", o->n_stages, 1, SCHEDULER_STAGES_MAX},
        {"cache blocks", o->kv_blocks, 2, 1 << 24},
        {"positions", o->max_positions, 1, 1 << 24},
        {"queue places", o->queue_max, 1, SCHEDULER_QUEUE_MAX},
        {"running requests", o->running_max, 1, SCHEDULER_RUNNING_MAX},
        {"tokens of a micro-batch", o->rows_max, ROWS_LEAST, SCHEDULER_ROWS_MAX},
        {"micro-batches", o->micro_batches, 0, SCHEDULER_SLOTS_MAX},
        {"prompt tokens of a micro-batch", o->prefill_chunk, 0, SCHEDULER_ROWS_MAX},
    };
    if (!o->vocabulary)
        return error_set(err, STATUS_INVALID, "the scheduler needs a vocabulary");
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (ranges[i].value < ranges[i].least || ranges[i].value > ranges[i].most)
            return error_set(err, STATUS_INVALID, "%d %s, expected %d to %d", ranges[i].value,
                             ranges[i].name, ranges[i].least, ranges[i].most);
    }
    if (!(o->prefill_delay >= 0 && o->prefill_delay <= 1000))
        return error_set(err, STATUS_INVALID, "prefill delay %g, expected 0 to 1000",
                         o->prefill_delay);
    return STATUS_OK;
}

static bool allocate_step(const struct scheduler *s, struct step *step)
{
    int entries = s->options.running_max < s->rows_max ? s->options.running_max : s->rows_max;
    int rows = 2 * entries < s->rows_max ? 2 * entries : s->rows_max;
    int outputs = rows + STATE_LOGITS_MAX;
    step->rows = calloc((size_t)rows, sizeof(*step->rows));
    step->tokens = calloc((size_t)s->rows_max, sizeof(*step->tokens));
    step->outputs = calloc((size_t)outputs, sizeof(*step->outputs));
    step->samplings = calloc((size_t)entries, sizeof(*step->samplings));
    step->entries = calloc((size_t)entries, sizeof(*step->entries));
    step->forks = calloc((size_t)s->options.running_max, sizeof(*step->forks));
    step->release = calloc((size_t)s->release_max, sizeof(*step->release));
    step->listed = calloc((size_t)s->listed_max, sizeof(*step->listed));
    return step->rows && step->tokens && step->outputs && step->samplings && step->entries &&
           step->forks && step->release && step->listed;
}

static bool allocate(struct scheduler *s)
{
    const struct scheduler_options *o = &s->options;
    size_t running = (size_t)o->running_max;
    s->by_id = calloc((size_t)s->n_buckets, sizeof(*s->by_id));
    s->running = calloc(running, sizeof(*s->running));
    s->members = calloc(running, sizeof(*s->members));
    s->curves = calloc(running + 1, sizeof(*s->curves));
    s->needs = calloc(running, sizeof(*s->needs));
    s->release = calloc((size_t)s->release_max, sizeof(*s->release));
    s->slots = calloc((size_t)s->n_slots_max, sizeof(*s->slots));
    s->steps = calloc((size_t)s->n_steps, sizeof(*s->steps));
    s->stages = calloc((size_t)o->n_stages, sizeof(*s->stages));
    if (!s->by_id || !s->running || !s->members || !s->curves || !s->needs || !s->release ||
        !s->slots || !s->steps || !s->stages)
        return false;
    for (int i = 0; i < s->n_steps; i++) {
        if (!allocate_step(s, &s->steps[i]))
            return false;
    }
    return true;
}

static void set_sizes(struct scheduler *s)
{
    const struct scheduler_options *o = &s->options;
    s->limits = (struct request_limits){.vocabulary = o->vocabulary,
                                        .vocab = o->vocab > 0 ? o->vocab : o->vocabulary->n_ids,
                                        .max_positions = o->max_positions,
                                        .kv_blocks = o->kv_blocks};
    s->rows_max = o->rows_max;
    s->release_max = STATE_RELEASES_PER_REQUEST * o->running_max;
    s->listed_max = STATE_LISTED_DRAWS * o->vocabulary->n_sizes + o->running_max;
    s->n_slots_max = o->micro_batches > 0 ? o->micro_batches : 2 * o->n_stages + 2;
    s->n_steps = s->n_slots_max > o->n_stages + 1 ? s->n_slots_max : o->n_stages + 1;
    s->n_buckets = 16;
    while (s->n_buckets < BUCKETS_MAX && s->n_buckets < o->queue_max + o->running_max)
        s->n_buckets *= 2;
}

enum status scheduler_create(struct scheduler **out, const struct scheduler_options *options,
                             struct error *err)
{
    *out = NULL;
    enum status st = check_options(options, err);
    if (st != STATUS_OK)
        return st;
    struct scheduler *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(err, STATUS_NOMEM, "cannot allocate the scheduler");
    s->options = *options;
    s->options.priors = NULL;
    set_sizes(s);
    st = cost_create(&s->cost, options->n_stages, options->priors, err);
    if (st == STATUS_OK && !allocate(s))
        st = error_set(err, STATUS_NOMEM, "cannot allocate plans of %d tokens for %d micro-batches",
                       s->rows_max, s->n_steps);
    if (st != STATUS_OK) {
        scheduler_destroy(s);
        return st;
    }
    s->epoch = options->epoch;
    s->next_number = s->next_sequence = s->next_arrival = s->next_admission = s->next_ready = 1;
    s->n_slots = 1;
    s->stages[0].way_ns = WAY_GUESS_NS;
    s->round_factor = 1;
    s->active_since_ns = -1;
    *out = s;
    return STATUS_OK;
}

/* ---- ends of objects ---- */

static struct request **bucket(const struct scheduler *s, uint64_t id)
{
    uint64_t mixed = (id ^ (id >> 32)) * 0x9E3779B97F4A7C15u;
    return &s->by_id[(mixed >> 40) & (uint64_t)(s->n_buckets - 1)];
}

struct request *state_find(const struct scheduler *s, uint64_t id)
{
    struct request *r = *bucket(s, id);
    while (r && r->id != id)
        r = r->by_id;
    return r;
}

static void forget_id(struct scheduler *s, struct request *r)
{
    struct request **at = bucket(s, r->id);
    while (*at != r)
        at = &(*at)->by_id;
    *at = r->by_id;
}

static void destroy_request(struct scheduler *s, struct request *r)
{
    s->n_requests--;
    request_destroy(r);
}

/* The last plan that named an ended request is gone. */
static void leave_flight(struct scheduler *s, struct request *r)
{
    CHECK(r->n_in_flight > 0);
    if (--r->n_in_flight == 0 && r->ending_told)
        destroy_request(s, r);
}

static void free_taken(struct scheduler *s)
{
    if (s->taken)
        destroy_request(s, s->taken);
    s->taken = NULL;
}

static void land(struct scheduler *s, struct step *step)
{
    step->in_flight = false;
    s->n_in_flight--;
    if (step->plan.slot < 0)
        return;
    struct slot *slot = &s->slots[step->plan.slot];
    slot->n_in_flight--;
    if (step->plan.n_draws > 0) {
        slot->n_waiting--;
        slot->ready_order = s->next_ready++;
    }
}

void scheduler_destroy(struct scheduler *s)
{
    if (!s)
        return;
    free_taken(s);
    for (int i = 0; s->steps && i < s->n_steps; i++) {
        struct step *step = &s->steps[i];
        for (int k = 0; step->in_flight && k < step->n_entries; k++)
            leave_flight(s, step->entries[k].request);
        free(step->rows);
        free(step->tokens);
        free(step->outputs);
        free(step->samplings);
        free(step->entries);
        free(step->forks);
        free(step->release);
        free(step->listed);
    }
    for (int i = 0; s->by_id && i < s->n_buckets; i++) {
        while (s->by_id[i]) {
            struct request *r = s->by_id[i];
            s->by_id[i] = r->by_id;
            request_destroy(r);
        }
    }
    free(s->by_id);
    free(s->running);
    free(s->members);
    free(s->curves);
    free(s->needs);
    free(s->release);
    free(s->slots);
    free(s->steps);
    free(s->stages);
    cost_destroy(s->cost);
    free(s);
}

/* ---- requests ---- */

void state_tell(struct scheduler *s, struct request *r)
{
    if (r->in_events)
        return;
    r->in_events = true;
    r->next_event = NULL;
    if (s->last_event)
        s->last_event->next_event = r;
    else
        s->first_event = r;
    s->last_event = r;
}

void state_release(struct scheduler *s, struct sequence *sequence)
{
    if (sequence->id != 0) {
        CHECK(s->n_release < s->release_max);
        s->release[s->n_release++] = sequence->id;
        s->kv_used -= sequence->n_blocks;
        CHECK(s->kv_used >= 0);
        s->admit_soon = true;
    }
    *sequence = (struct sequence){.base = sequence->base};
}

void state_end(struct scheduler *s, struct request *r, enum scheduler_event_kind how,
               const char *text, int64_t now_ns)
{
    if (r->state == REQUEST_RUNNING) {
        state_release(s, &r->conditional);
        state_release(s, &r->unconditional);
        microbatch_leave(s, r);
        admission_leave(s, r);
    } else if (r->state == REQUEST_QUEUED) {
        admission_dequeue(s, r);
    }
    r->state = REQUEST_ENDED;
    r->ending = how;
    if (text)
        snprintf(r->text, sizeof(r->text), "%s", text);
    s->figures.finished += how == SCHEDULER_FINISHED;
    s->figures.failed += how == SCHEDULER_FAILED;
    s->figures.canceled += how == SCHEDULER_CANCELED;
    state_tell(s, r);
    account_active(s, now_ns);
}

static enum status refuse(struct scheduler *s, enum status st)
{
    s->figures.refused++;
    return st;
}

enum status scheduler_submit(struct scheduler *s, int64_t now_ns,
                             const struct scheduler_request *spec, struct error *err)
{
    free_taken(s);
    s->now_ns = now_ns;
    if (state_find(s, spec->id))
        return refuse(s, error_set(err, STATUS_INVALID, "request %llu lives already",
                                   (unsigned long long)spec->id));
    if (s->n_queued >= s->options.queue_max ||
        s->n_requests >= s->options.queue_max + s->options.running_max)
        return refuse(s, error_set(err, STATUS_FULL,
                                   "the queue is full: %d requests wait, the limit is %d",
                                   s->n_queued, s->options.queue_max));
    struct request *r;
    enum status st = request_create(&r, spec, &s->limits, err);
    if (st != STATUS_OK)
        return refuse(s, st);
    r->arrival = s->next_arrival++;
    r->by_id = *bucket(s, r->id);
    *bucket(s, r->id) = r;
    s->n_requests++;
    s->figures.submitted++;
    if (r->state == REQUEST_ENDED) {
        state_end(s, r, SCHEDULER_FINISHED, NULL, now_ns);
        return STATUS_OK;
    }
    admission_enqueue(s, r);
    account_active(s, now_ns);
    /* Only whoever does not fit waits in the queue, so that its limit means what it says. */
    admission_run(s, now_ns);
    return STATUS_OK;
}

enum status scheduler_cancel(struct scheduler *s, int64_t now_ns, uint64_t id, struct error *err)
{
    free_taken(s);
    struct request *r = state_find(s, id);
    if (!r || r->state == REQUEST_ENDED)
        return error_set(err, STATUS_NOT_FOUND, "no request %llu", (unsigned long long)id);
    state_end(s, r, SCHEDULER_CANCELED, NULL, now_ns);
    return STATUS_OK;
}

const struct plan *scheduler_next_plan(struct scheduler *s, int64_t now_ns)
{
    free_taken(s);
    s->now_ns = now_ns;
    admission_run(s, now_ns);
    microbatch_review(s);
    if (s->n_in_flight == s->n_steps)
        return NULL;
    s->pass++;
    struct slot *slot;
    while ((slot = microbatch_next(s, s->pass))) {
        slot->tried = s->pass;
        struct step *step = form_step(s, slot, now_ns);
        if (step)
            return &step->plan;
    }
    /* Nothing else is under way that could carry them. */
    if (s->n_release > 0 && s->n_in_flight == 0)
        return &form_release(s, now_ns)->plan;
    return NULL;
}

/* ---- answers ---- */

static struct step *find_step(struct scheduler *s, uint64_t number, struct error *err)
{
    for (int i = 0; i < s->n_steps; i++) {
        if (s->steps[i].in_flight && s->steps[i].plan.number == number)
            return &s->steps[i];
    }
    error_set(err, STATUS_NOT_FOUND, "no plan %llu is in flight in epoch %llu",
              (unsigned long long)number, (unsigned long long)s->epoch);
    return NULL;
}

static const char *failure_of(const struct plan_result *result, const struct plan_entry *entry)
{
    for (int i = 0; i < result->n_failures; i++) {
        int row = result->failures[i].row;
        if (row >= entry->row && row < entry->row + entry->n_rows)
            return result->failures[i].text ? result->failures[i].text : "the step failed";
    }
    return NULL;
}

/* Before anything is changed: every token must be one that could be drawn. */
static enum status check_result(const struct scheduler *s, const struct step *step,
                                const struct plan_result *result, struct error *err)
{
    if (result->n_tokens != step->plan.n_draws)
        return error_set(err, STATUS_INVALID, "plan %llu answered with %d tokens, expected %d",
                         (unsigned long long)result->number, result->n_tokens, step->plan.n_draws);
    for (int i = 0; i < result->n_failures; i++) {
        if (result->failures[i].row < 0 || result->failures[i].row >= step->plan.n_rows)
            return error_set(
                err, STATUS_INVALID, "plan %llu answered that row %d failed, it has %d",
                (unsigned long long)result->number, result->failures[i].row, step->plan.n_rows);
    }
    int n = 0;
    for (int i = 0; i < step->n_entries; i++) {
        const struct plan_entry *entry = &step->entries[i];
        if (!entry->draws)
            continue;
        int32_t token = result->tokens[n++];
        if (entry->request->state == REQUEST_ENDED || failure_of(result, entry))
            continue;
        if (!request_allows(entry->request, s->limits.vocab, token))
            return error_set(
                err, STATUS_INVALID,
                "plan %llu answered with token %d for request %llu, which cannot stand there",
                (unsigned long long)result->number, token, (unsigned long long)entry->request->id);
    }
    return STATUS_OK;
}

/* The stages now hold what the plan fed, unless the request was sent back meanwhile. */
static void hold(const struct step *step, const struct plan_entry *entry)
{
    struct request *r = entry->request;
    struct sequence *sequences[2] = {&r->conditional, &r->unconditional};
    for (int row = entry->row; row < entry->row + entry->n_rows; row++) {
        for (int i = 0; i < 2; i++) {
            if (sequences[i]->id == step->rows[row].sequence)
                sequences[i]->n_held = step->rows[row].start + step->rows[row].n_tokens;
        }
    }
}

static void commit(struct scheduler *s, struct request *r, int32_t token, int64_t now_ns)
{
    struct sequence closed;
    int before = r->n_tokens;
    r->awaits_draw = false;
    bool ended = request_push(r, token, &closed);
    s->figures.tokens_committed += (uint64_t)(r->n_tokens - before);
    state_release(s, &closed);
    if (r->state == REQUEST_RUNNING)
        microbatch_count(s, r);
    else
        s->admit_soon = true; /* sent back with this draw under way: now it can start again */
    if (ended)
        state_end(s, r, SCHEDULER_FINISHED, NULL, now_ns);
    state_tell(s, r);
}

static void settle(struct scheduler *s, const struct step *step, const struct plan_entry *entry,
                   const struct plan_result *result, int *n_drawn, int64_t now_ns)
{
    struct request *r = entry->request;
    int drawn = *n_drawn;
    *n_drawn += entry->draws;
    if (r->state == REQUEST_ENDED)
        return;
    const char *failure = failure_of(result, entry);
    if (failure) {
        state_end(s, r, SCHEDULER_FAILED, failure, now_ns);
        return;
    }
    hold(step, entry);
    if (entry->draws)
        commit(s, r, result->tokens[drawn], now_ns);
    else if (r->mode == SCHEDULER_PROBE && r->conditional.n_held == r->n_tokens)
        state_end(s, r, SCHEDULER_FINISHED, NULL, now_ns);
}

static double useful_share(const struct step *step)
{
    int useful = 0;
    for (int i = 0; i < step->n_entries; i++) {
        const struct plan_entry *entry = &step->entries[i];
        bool lost =
            entry->request->state == REQUEST_ENDED && entry->request->ending != SCHEDULER_FINISHED;
        for (int k = entry->row; !lost && k < entry->row + entry->n_rows; k++)
            useful += step->rows[k].n_tokens;
    }
    return step->plan.n_tokens > 0 ? (double)useful / step->plan.n_tokens : 0;
}

static void fail_step(struct scheduler *s, struct step *step, const char *text, int64_t now_ns)
{
    s->figures.plans_failed++;
    for (int i = 0; i < step->n_entries; i++) {
        struct request *r = step->entries[i].request;
        if (r->state != REQUEST_ENDED)
            state_end(s, r, SCHEDULER_FAILED, text, now_ns);
    }
    account_answered(s, step, 0, now_ns);
    land(s, step);
    for (int i = 0; i < step->n_entries; i++)
        leave_flight(s, step->entries[i].request);
}

enum status scheduler_complete(struct scheduler *s, int64_t now_ns,
                               const struct plan_result *result, struct error *err)
{
    free_taken(s);
    s->now_ns = now_ns;
    struct step *step = find_step(s, result->number, err);
    if (!step)
        return STATUS_NOT_FOUND;
    struct error wrong;
    enum status st = check_result(s, step, result, &wrong);
    if (st != STATUS_OK) {
        fail_step(s, step, wrong.text, now_ns);
        return error_set(err, st, "%s", wrong.text);
    }
    int n_drawn = 0;
    for (int i = 0; i < step->n_entries; i++)
        settle(s, step, &step->entries[i], result, &n_drawn, now_ns);
    account_answered(s, step, useful_share(step), now_ns);
    land(s, step);
    for (int i = 0; i < step->n_entries; i++)
        leave_flight(s, step->entries[i].request);
    return STATUS_OK;
}

enum status scheduler_fail_plan(struct scheduler *s, int64_t now_ns, uint64_t number,
                                const char *text, struct error *err)
{
    free_taken(s);
    struct step *step = find_step(s, number, err);
    if (!step)
        return STATUS_NOT_FOUND;
    fail_step(s, step, text, now_ns);
    return STATUS_OK;
}

void scheduler_reset(struct scheduler *s, int64_t now_ns, uint64_t epoch)
{
    free_taken(s);
    for (int i = 0; i < s->n_steps; i++) {
        struct step *step = &s->steps[i];
        if (!step->in_flight)
            continue;
        account_answered(s, step, 0, now_ns);
        land(s, step);
        for (int k = 0; k < step->n_entries; k++) {
            step->entries[k].request->awaits_draw = false;
            leave_flight(s, step->entries[k].request);
        }
    }
    while (s->n_running > 0) {
        struct request *r = s->running[s->n_running - 1];
        admission_send_back(s, r);
        s->figures.preempted--; /* not for memory */
    }
    CHECK(s->kv_used == 0);
    s->n_release = 0;
    s->epoch = epoch;
    s->next_number = 1;
    s->regroup_again = 0;
    s->admit_again = 0;
    s->now_ns = now_ns;
    memset(s->history, 0, sizeof(s->history));
    for (int i = 0; i < s->options.n_stages; i++)
        s->stages[i].number = 0;
    for (int i = 0; i < s->n_slots_max; i++)
        s->slots[i].answered_ns = 0;
}

/* ---- events ---- */

static void pop_event(struct scheduler *s, struct request *r)
{
    s->first_event = r->next_event;
    if (!s->first_event)
        s->last_event = NULL;
    r->in_events = false;
}

static void tell_ending(struct scheduler *s, struct request *r, struct scheduler_event *event)
{
    event->kind = r->ending;
    if (r->ending == SCHEDULER_FINISHED) {
        event->finish = r->finish;
        event->n_tokens = r->mode == SCHEDULER_PROBE ? 0 : request_n_generated(r);
        event->tokens = r->tokens + r->n_prompt;
    }
    event->text = r->ending == SCHEDULER_FAILED ? r->text : NULL;
    r->ending_told = true;
    pop_event(s, r);
    forget_id(s, r);
    if (r->n_in_flight == 0)
        s->taken = r;
}

bool scheduler_next_event(struct scheduler *s, struct scheduler_event *event)
{
    free_taken(s);
    while (s->first_event) {
        struct request *r = s->first_event;
        int n_new = r->mode == SCHEDULER_PROBE ? 0 : request_n_generated(r) - r->n_told;
        *event = (struct scheduler_event){.request = r->id};
        if (r->tell_start) {
            event->kind = SCHEDULER_STARTED;
            r->tell_start = false;
            return true;
        }
        if (n_new > 0) {
            event->kind = SCHEDULER_TOKENS;
            event->n_tokens = n_new;
            event->first_ordinal = r->n_told;
            event->tokens = r->tokens + r->n_prompt + r->n_told;
            r->n_told += n_new;
            if (r->state != REQUEST_ENDED)
                pop_event(s, r);
            return true;
        }
        if (r->state == REQUEST_ENDED) {
            tell_ending(s, r, event);
            return true;
        }
        pop_event(s, r);
    }
    return false;
}
