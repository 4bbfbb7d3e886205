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

/* A refused head of the queue is looked at again after so many rounds: curves move with time. */
enum { AGAIN_ROUNDS = 8 };
/* Text starts only if it can go on so long before pictures want the blocks. */
enum { TEXT_ROUNDS = 256 };
/* Starts are spread when the work that is here fills the pool so many times. */
enum { PACE_POOLS = 2 };
/* Tokens of a prompt that count as a round. */
enum { PREFILL_TOKENS = 256 };

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

/* Whether the work that is here fills the pool several times over. */
static bool is_deep_backlog(const struct scheduler *s)
{
    int64_t enough = (int64_t)PACE_POOLS * s->options.kv_blocks, sum = 0;
    for (int i = 0; i < s->n_running; i++)
        sum += s->running[i]->blocks_final;
    for (const struct request *r = s->queue.first; r && sum < enough; r = r->by_place.next)
        sum += r->blocks_final;
    return sum >= enough;
}

/* Rounds between the start of this picture and the next that fill the pool evenly. Pictures that
 * start together also end together: on average the pool is then half empty. Evenly spread starts
 * let twice as many run. */
static double pace_rounds(const struct scheduler *s, const struct request *r)
{
    double final = r->blocks_final, pool = s->options.kv_blocks;
    double first = request_blocks_after(r, 0);
    double at_once = 2 * pool / (final + first) - 1;
    if (at_once < 1)
        at_once = 1;
    return request_rounds_left(r) / at_once;
}

/* A picture that would fit may still have to wait its turn. Never while the stages have room for
 * more micro-batches. */
static bool is_too_early(const struct scheduler *s, const struct request *r)
{
    return request_is_picture(r) && s->n_running > s->options.n_stages &&
           s->rounds < s->next_start_rounds && is_deep_backlog(s);
}

static void start(struct scheduler *s, struct request *r, int64_t now_ns)
{
    if (request_is_picture(r)) {
        double from = s->rounds > s->next_start_rounds ? s->rounds : s->next_start_rounds;
        if (s->n_running <= s->options.n_stages)
            from = s->rounds;
        s->next_start_rounds = from + pace_rounds(s, r);
    }
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
    if (!s->admit_soon && s->rounds < s->admit_again)
        return;
    double again = s->rounds + AGAIN_ROUNDS;
    while (s->queue.first && s->n_running < s->options.running_max) {
        struct request *head = s->queue.first;
        bool is_early = is_too_early(s, head);
        if (is_early && s->next_start_rounds < again)
            again = s->next_start_rounds;
        /* A request sent back may still have a draw under way: its token must not be fed twice. */
        if (is_early || head->awaits_draw || !fits(s, head))
            break;
        start(s, head, now_ns);
    }
    s->admit_soon = false;
    s->admit_again = again;
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

/* The text admitted last, but for those in the plan being formed: their rows are in it already, or
 * others take over their blocks. */
static struct request *youngest_text(const struct scheduler *s)
{
    struct request *youngest = NULL;
    for (int i = 0; i < s->n_running; i++) {
        struct request *r = s->running[i];
        bool is_in_plan = r->planned == s->next_number || r->forked == s->next_number;
        if (!request_is_picture(r) && !is_in_plan && (!youngest || r->arrival > youngest->arrival))
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
