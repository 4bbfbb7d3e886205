/*
 * microbatch.c - slots: how many micro-batches travel round, and which request belongs to which.
 *
 * Load of a slot = rows * cost of a row + context * cost of a position, as measured in the slowest
 * stage. A request joins the lightest slot and moves only when its slot is about to be formed, so a
 * move never waits for anything.
 */
#include "base/check.h"
#include "scheduler/state.h"

enum {
    REVIEW_PLANS =
        64, /* plans between two looks at the number of slots, when nobody came or left */
    MOVES_PER_PLAN = 64 /* bound on the work of one plan */
};
static const double EVEN_GAIN =
    0.02; /* a move must even out more than this share of a slot's mean load */

static double weight(const struct scheduler *s, int n_rows, int64_t n_context)
{
    return n_rows * s->token_ns + (double)n_context * s->context_ns;
}

double microbatch_load(const struct scheduler *s, const struct slot *slot)
{
    return weight(s, slot->n_rows, slot->n_context);
}

static struct slot *lightest(struct scheduler *s)
{
    struct slot *best = &s->slots[0];
    for (int i = 1; i < s->n_slots; i++) {
        if (microbatch_load(s, &s->slots[i]) < microbatch_load(s, best))
            best = &s->slots[i];
    }
    return best;
}

/* Brings what the slot counts for r up to date. */
void microbatch_count(struct scheduler *s, struct request *r)
{
    struct slot *slot = &s->slots[r->home];
    int n_rows = r->has_unconditional ? 2 : 1;
    int64_t n_context = r->n_tokens;
    if (r->has_unconditional)
        n_context += r->n_tokens - r->unconditional.base;
    slot->n_rows += n_rows - r->load_rows;
    slot->n_context += n_context - r->load_context;
    s->n_rows += n_rows - r->load_rows;
    s->n_context += n_context - r->load_context;
    r->load_rows = n_rows;
    r->load_context = n_context;
}

static void uncount(struct scheduler *s, struct request *r)
{
    struct slot *slot = &s->slots[r->home];
    slot->n_rows -= r->load_rows;
    slot->n_context -= r->load_context;
    s->n_rows -= r->load_rows;
    s->n_context -= r->load_context;
    r->load_rows = 0;
    r->load_context = 0;
}

static void put(struct scheduler *s, struct request *r, struct slot *slot)
{
    r->slot = r->home = (int)(slot - s->slots);
    state_list_append(&slot->members, r);
    if (slot->n_members++ == 0)
        slot->ready_order = s->next_ready++;
    microbatch_count(s, r);
}

void microbatch_join(struct scheduler *s, struct request *r)
{
    s->regroup_soon = true;
    r->in_prefill = true;
    s->n_prefill++;
    microbatch_review(s);
    put(s, r, lightest(s));
}

static void take_out(struct scheduler *s, struct request *r)
{
    struct slot *slot = &s->slots[r->slot];
    state_list_remove(&slot->members, r);
    slot->n_members--;
    uncount(s, r);
    r->slot = r->home = -1;
}

void microbatch_end_prefill(struct scheduler *s, struct request *r)
{
    s->n_prefill -= r->in_prefill;
    r->in_prefill = false;
}

void microbatch_leave(struct scheduler *s, struct request *r)
{
    microbatch_end_prefill(s, r);
    take_out(s, r);
    s->regroup_soon = true;
}

void microbatch_review(struct scheduler *s)
{
    if (!s->regroup_soon && s->next_number < s->regroup_again)
        return;
    s->regroup_again = s->next_number + REVIEW_PLANS + 4 * (uint64_t)s->n_slots;
    s->regroup_soon = false;
    s->exchanges = 2 * s->n_slots;
    int most = s->n_running < s->n_slots_max ? s->n_running : s->n_slots_max;
    if (most < 1)
        most = 1;
    double n_rows = s->n_rows > 1 ? s->n_rows : 1, n_context = (double)s->n_context;
    if (s->options.micro_batches > 0)
        s->n_slots = s->options.micro_batches < most ? s->options.micro_batches : most;
    else
        s->n_slots =
            cost_best_slots(s->cost, most, s->n_slots, n_rows, n_context, account_way_ns(s));
    double step_ns = cost_step_ns(s->cost, n_rows / s->n_slots, n_context / s->n_slots, NULL);
    s->allowed_ns = (1 + s->options.prefill_delay) * step_ns;
    cost_marginal_ns(s->cost, n_rows / s->n_slots, n_context / s->n_slots, &s->token_ns,
                     &s->context_ns);
    /* Where rows are free (the weights are read anyway) their number is still evened out. */
    double least = 0.01 * step_ns * s->n_slots / n_rows;
    if (s->token_ns < least)
        s->token_ns = least;
}

static bool has_ready_member(const struct slot *slot)
{
    for (const struct request *r = slot->members.first; r; r = r->by_place.next) {
        if (request_is_ready(r))
            return true;
    }
    return false;
}

/* A slot whose plans under way bring no token (prefill) may send the next one behind them, as long
 * as the stages have less to do than a full set of micro-batches would give them. */
static bool may_form(const struct scheduler *s, const struct slot *slot)
{
    if (slot->n_members == 0 || slot->n_waiting > 0)
        return false;
    int full = s->options.micro_batches > 0 ? s->options.micro_batches : s->options.n_stages + 1;
    if (slot->n_in_flight > 0 && s->n_in_flight >= full)
        return false;
    return has_ready_member(slot);
}

struct slot *microbatch_next(struct scheduler *s, uint64_t pass)
{
    struct slot *best = NULL;
    for (int i = 0; i < s->n_slots_max; i++) {
        struct slot *slot = &s->slots[i];
        if (slot->tried != pass && (!best || slot->ready_order < best->ready_order) &&
            may_form(s, slot))
            best = slot;
    }
    return best;
}

/* The member whose move from a slot heavier by `difference` evens most: the one nearest to half of
 * it. */
static struct request *best_to_move(const struct scheduler *s, const struct slot *slot,
                                    double difference, double *gain)
{
    struct request *best = NULL;
    *gain = 0;
    for (struct request *r = slot->members.first; r; r = r->by_place.next) {
        double w = weight(s, r->load_rows, r->load_context);
        double evened = w < difference - w ? w : difference - w;
        if (evened > *gain) {
            *gain = evened;
            best = r;
        }
    }
    return best;
}

static void dissolve(struct scheduler *s, struct slot *slot)
{
    while (slot->members.first) {
        struct request *r = slot->members.first;
        take_out(s, r);
        put(s, r, lightest(s));
    }
}

/* The pair whose exchange evens most: r goes from `slot` to `to`, *back the other way. */
static struct request *best_to_exchange(const struct scheduler *s, const struct slot *slot,
                                        const struct slot *to, double difference, double *gain,
                                        struct request **back)
{
    struct request *best = NULL;
    *gain = 0;
    for (struct request *r = slot->members.first; r; r = r->by_place.next) {
        double w = weight(s, r->load_rows, r->load_context);
        for (struct request *q = to->members.first; q; q = q->by_place.next) {
            double moved = w - weight(s, q->load_rows, q->load_context);
            double evened = moved < difference - moved ? moved : difference - moved;
            if (evened > *gain && q->home == q->slot) {
                *gain = evened;
                *back = q;
                best = r;
            }
        }
    }
    return best;
}

/* Where nothing can be moved without making the other slot the heavier one, two may change places.
 * The other one's member is usually under way: it is counted here at once and comes when its slot
 * is formed. */
static void exchange(struct scheduler *s, struct slot *slot, struct slot *to, double difference,
                     double mean)
{
    double gain;
    struct request *back, *r = best_to_exchange(s, slot, to, difference, &gain, &back);
    if (!r || gain <= EVEN_GAIN * mean)
        return;
    take_out(s, r);
    put(s, r, to);
    uncount(s, back);
    back->home = (int)(slot - s->slots);
    microbatch_count(s, back);
}

static void send_home(struct scheduler *s, struct slot *slot)
{
    struct request *next;
    for (struct request *r = slot->members.first; r; r = next) {
        next = r->by_place.next;
        if (r->home != r->slot) {
            struct slot *home = &s->slots[r->home];
            take_out(s, r);
            put(s, r, home);
        }
    }
}

void microbatch_even(struct scheduler *s, struct slot *slot)
{
    send_home(s, slot);
    if (slot - s->slots >= s->n_slots) {
        dissolve(s, slot);
        return;
    }
    double mean = weight(s, s->n_rows, s->n_context) / s->n_slots;
    for (int moves = 0; moves < MOVES_PER_PLAN && slot->n_members > 0; moves++) {
        struct slot *to = lightest(s);
        double difference = microbatch_load(s, slot) - microbatch_load(s, to), gain;
        if (difference <= 2 * EVEN_GAIN * mean)
            return;
        struct request *r = best_to_move(s, slot, difference, &gain);
        if (!r || gain <= EVEN_GAIN * mean) {
            if (s->exchanges-- > 0)
                exchange(s, slot, to, difference, mean);
            return;
        }
        take_out(s, r);
        put(s, r, to);
    }
}
