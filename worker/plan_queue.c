/*
 * plan_queue.c - a ring of messages.
 */
#include "worker/plan_queue.h"

#include "base/check.h"

void plan_queue_reset(struct plan_queue *queue, uint64_t epoch, uint64_t first_number)
{
    while (queue->n > 0)
        plan_queue_pop(queue, 0);
    queue->epoch = epoch;
    queue->next_number = first_number;
}

enum status plan_queue_accept(struct plan_queue *queue, struct message *message, int64_t now_ns,
                              struct error *err)
{
    CHECK(message->type == MESSAGE_STEP_PLAN);
    const Mgpt__StepPlan *plan = message->step_plan;
    if (queue->epoch == 0)
        return error_set(err, STATUS_INVALID, "plan %llu came before anything was loaded",
                         (unsigned long long)plan->number);
    if (plan->epoch != queue->epoch || plan->number != queue->next_number)
        return error_set(err, STATUS_INVALID,
                         "plan %llu of epoch %llu, expected plan %llu of epoch %llu",
                         (unsigned long long)plan->number, (unsigned long long)plan->epoch,
                         (unsigned long long)queue->next_number, (unsigned long long)queue->epoch);
    if (queue->n == PLAN_QUEUE_MAX)
        return error_set(err, STATUS_FULL, "plan %llu finds %d plans waiting, the limit",
                         (unsigned long long)plan->number, PLAN_QUEUE_MAX);
    if (queue->n == 0)
        queue->head_since_ns = now_ns;
    queue->plans[(queue->first + queue->n) % PLAN_QUEUE_MAX] = *message;
    *message = (struct message){.type = MESSAGE_NONE};
    queue->n++;
    queue->next_number++;
    return STATUS_OK;
}

const Mgpt__StepPlan *plan_queue_head(const struct plan_queue *queue)
{
    return queue->n > 0 ? queue->plans[queue->first].step_plan : NULL;
}

void plan_queue_pop(struct plan_queue *queue, int64_t now_ns)
{
    CHECK(queue->n > 0);
    message_clear(&queue->plans[queue->first]);
    queue->first = (queue->first + 1) % PLAN_QUEUE_MAX;
    queue->n--;
    queue->head_since_ns = now_ns;
}

uint64_t plan_queue_head_number(const struct plan_queue *queue)
{
    return queue->next_number - (uint64_t)queue->n;
}
