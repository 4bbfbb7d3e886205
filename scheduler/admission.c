/*
 * admission.c - the queue, and the pool of cache blocks: who starts, who may grow, who goes back.
 *
 * A picture's length is known, so the blocks it will hold are a known curve that rises until its
 * end. All running requests feed one draw a round, so the sum of the curves has its peaks where a
 * picture ends: a picture is admitted when none of them passes the pool. Rounds are not quite equal
 * in length for all (moves between slots, prefill in chunks), so a block is taken only if
 * afterwards the pictures can still all end in some order (Dijkstra's banker): whoever may not,
 * waits a round. So pictures are never preempted, and never wait for each other in a circle. Text
 * has no known length. It counts with what it holds, and gives way: when the pool is full the
 * youngest text goes back to the queue with its tokens.
 */
#include <stdlib.h>

#include "base/check.h"
#include "scheduler/state.h"

enum {
    AGAIN_PLANS = 32, /* a refused head of the queue is looked at again after so many plans: curves
                         move with time */
    TEXT_ROUNDS =
        256, /* text starts only if it can go on so long before pictures want the blocks */
    PREFILL_TOKENS = 256 /* tokens of a prompt that count as a round */
};

/* ---- the queue ---- */

static bool goes_before(const struct request *a, const struct request *b)
{
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->arrival < b->arrival;
}

void admission_enqueue(struct scheduler *s, struct request *r)
{
    struct request *before = s->queue.last;
    while (before && goes_before(r, before))
        before = before->by_place.previous;
    struct request *place = before ? before->by_place.next : s->queue.first;
    if (place)
        state_list_insert_before(&s->queue, place, r);
    else
        state_list_append(&s->queue, r);
    r->state = REQUEST_QUEUED;
    s->n_queued++;
    s->admit_soon = true;
}

void admission_dequeue(struct scheduler *s, struct request *r)
{
    state_list_remove(&s->queue, r);
    s->n_queued--;
    s->admit_soon = true;
}

void admission_leave(struct scheduler *s, struct request *r)
{
    int i = 0;
    while (s->running[i] != r)
        i++;
    for (; i + 1 < s->n_running; i++)
        s->running[i] = s->running[i + 1];
    s->n_running--;
    if (request_is_picture(r))
        s->n_running_pictures--;
    s->admit_soon = true;
}

/* ---- curves ---- */

static int rounds_until_end(const struct request *r)
{
    int unfed = request_need(r, &r->conditional);
    return request_rounds_left(r) + unfed / PREFILL_TOKENS;
}

static int compare_curves(const void *a, const void *b)
{
    const struct curve *x = a, *y = b;
    if (x->n_rounds != y->n_rounds)
        return x->n_rounds > y->n_rounds ? 1 : -1;
    return x->request->arrival > y->request->arrival ? 1 : -1;
}

/* The largest sum of blocks of the pictures within `horizon` rounds. Curves rise until they end, so
 * only ends and the horizon itself can be the peak. */
static int peak_of_pictures(struct scheduler *s, const struct request *also, int horizon, int limit)
{
    int n = 0, peak = 0;
    for (int i = 0; i <= s->n_running; i++) {
        const struct request *r = i < s->n_running ? s->running[i] : also;
        if (r && request_is_picture(r))
            s->curves[n++] = (struct curve){r, rounds_until_end(r)};
    }
    qsort(s->curves, (size_t)n, sizeof(s->curves[0]), compare_curves);
    for (int i = 0; i < n; i++) {
        int at = s->curves[i].n_rounds < horizon ? s->curves[i].n_rounds : horizon;
        int sum = 0;
        for (int k = i; k < n && sum <= limit; k++)
            sum += request_blocks_after(s->curves[k].request, at);
        if (sum > peak)
            peak = sum;
        if (peak > limit || s->curves[i].n_rounds >= horizon)
            break;
    }
    return peak;
}

/* What a text needs now: all its known tokens, and a block of each sequence to go on with. */
static int text_blocks(const struct request *r)
{
    int blocks = request_blocks_after(r, 0) + 1 + (r->guided ? 1 : 0);
    int final = request_blocks_final(r);
    return r->mode == SCHEDULER_PROBE || blocks > final ? final : blocks;
}

static bool fits(struct scheduler *s, const struct request *r)
{
    if (s->n_running == 0)
        return true; /* submit made sure of it */
    int texts = 0, pictures = 0;
    for (int i = 0; i < s->n_running; i++) {
        if (request_is_picture(s->running[i]))
            pictures += s->running[i]->blocks_final;
        else
            texts += text_blocks(s->running[i]);
    }
    if (!request_is_picture(r))
        texts += text_blocks(r);
    int left = s->options.kv_blocks - texts;
    int all = pictures + (request_is_picture(r) ? r->blocks_final : 0);
    if (all <= left)
        return true;
    if (request_is_picture(r))
        return peak_of_pictures(s, r, INT32_MAX, left) <= left;
    return peak_of_pictures(s, NULL, TEXT_ROUNDS, left) <= left;
}

static void start(struct scheduler *s, struct request *r, int64_t now_ns)
{
    admission_dequeue(s, r);
    r->state = REQUEST_RUNNING;
    r->admitted = s->next_admission++;
    s->running[s->n_running++] = r;
    if (request_is_picture(r))
        s->n_running_pictures++;
    if (r->started_ns < 0) {
        r->started_ns = now_ns;
        r->tell_start = true;
        state_tell(s, r);
    }
    microbatch_join(s, r);
}

void admission_run(struct scheduler *s, int64_t now_ns)
{
    if (!s->admit_soon && s->next_number < s->admit_again)
        return;
    s->admit_again = s->next_number + AGAIN_PLANS;
    while (s->queue.first && s->n_running < s->options.running_max) {
        struct request *head = s->queue.first;
        /* A request sent back may still have a draw under way: its token must not be fed twice. */
        if (head->awaits_draw || !fits(s, head))
            break;
        start(s, head, now_ns);
    }
    s->admit_soon = false;
}

/* ---- growing ---- */

void admission_send_back(struct scheduler *s, struct request *r)
{
    state_release(s, &r->conditional);
    state_release(s, &r->unconditional);
    request_forget_cache(r);
    microbatch_leave(s, r);
    admission_leave(s, r);
    admission_enqueue(s, r);
    s->figures.preempted++;
}

static int compare_ints(const void *a, const void *b)
{
    const int *x = a, *y = b;
    return (x[0] > y[0]) - (x[0] < y[0]);
}

/* Whether every picture can still come to its end after r took n blocks, one after the other,
 * smallest need first: what one gives back serves the next. Texts give way, so theirs count as
 * free. */
static bool is_safe(struct scheduler *s, const struct request *grower, int n_blocks)
{
    int available = s->options.kv_blocks, n = 0;
    int(*needs)[2] = s->needs; /* need, held */
    for (int i = 0; i < s->n_running; i++) {
        const struct request *r = s->running[i];
        if (!request_is_picture(r))
            continue;
        int held = request_blocks_held(r) + (r == grower ? n_blocks : 0);
        available -= held;
        needs[n][0] = r->blocks_final - held;
        needs[n++][1] = held;
    }
    if (available < 0)
        return false;
    qsort(needs, (size_t)n, sizeof(needs[0]), compare_ints);
    for (int i = 0; i < n; i++) {
        if (needs[i][0] > available)
            return false;
        available += needs[i][1];
    }
    return true;
}

/* The text admitted last, but for those in the plan being formed: their rows are in it already. */
static struct request *youngest_text(const struct scheduler *s)
{
    struct request *youngest = NULL;
    for (int i = 0; i < s->n_running; i++) {
        struct request *r = s->running[i];
        if (!request_is_picture(r) && r->planned != s->next_number &&
            (!youngest || r->arrival > youngest->arrival))
            youngest = r;
    }
    return youngest;
}

bool admission_may_grow(struct scheduler *s, struct request *r, int n_blocks)
{
    if (n_blocks == 0)
        return true;
    bool scarce = s->options.kv_blocks - s->kv_used < n_blocks;
    if (request_is_picture(r)) {
        int pictures = 0;
        for (int i = 0; i < s->n_running; i++)
            pictures += request_is_picture(s->running[i]) ? s->running[i]->blocks_final : 0;
        if (pictures > s->options.kv_blocks && !is_safe(s, r, n_blocks))
            return false;
    }
    while (scarce) {
        struct request *victim = youngest_text(s);
        if (!victim)
            return false;
        admission_send_back(s, victim);
        if (victim == r)
            return false;
        scarce = s->options.kv_blocks - s->kv_used < n_blocks;
    }
    return true;
}
