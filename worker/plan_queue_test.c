/*
 * plan_queue_test.c - only the plan that is next is accepted, and only while there is room.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/plan_queue.h"

static struct error err;

static struct message make_plan(uint64_t epoch, uint64_t number)
{
    Mgpt__StepPlan plan = MGPT__STEP_PLAN__INIT;
    plan.epoch = epoch;
    plan.number = number;
    uint8_t bytes[64];
    size_t n = mgpt__step_plan__pack(&plan, bytes);
    struct message message;
    assert_int_equal(message_decode(&message, MESSAGE_STEP_PLAN, bytes, n, &err), STATUS_OK);
    return message;
}

static enum status offer(struct plan_queue *queue, uint64_t epoch, uint64_t number, int64_t now_ns)
{
    struct message message = make_plan(epoch, number);
    enum status st = plan_queue_accept(queue, &message, now_ns, &err);
    assert_int_equal(message.type, st == STATUS_OK ? MESSAGE_NONE : MESSAGE_STEP_PLAN);
    message_clear(&message);
    return st;
}

static void test_order(void **state)
{
    (void)state;
    struct plan_queue queue = {0};
    assert_int_equal(offer(&queue, 1, 1, 0), STATUS_INVALID);
    assert_null(plan_queue_head(&queue));
    plan_queue_reset(&queue, 3, 10);
    assert_int_equal(offer(&queue, 3, 11, 0), STATUS_INVALID);
    assert_non_null(strstr(err.text, "plan 11 of epoch 3, expected plan 10 of epoch 3"));
    assert_int_equal(offer(&queue, 2, 10, 0), STATUS_INVALID);
    assert_int_equal(offer(&queue, 4, 10, 0), STATUS_INVALID);
    assert_int_equal(offer(&queue, 3, 10, 5), STATUS_OK);
    assert_int_equal(offer(&queue, 3, 10, 6), STATUS_INVALID); /* repeated */
    assert_int_equal(offer(&queue, 3, 11, 7), STATUS_OK);
    assert_int_equal(queue.head_since_ns, 5);
    assert_int_equal(plan_queue_head(&queue)->number, 10);
    plan_queue_pop(&queue, 9);
    assert_int_equal(queue.head_since_ns, 9);
    assert_int_equal(plan_queue_head_number(&queue), 11);
    plan_queue_pop(&queue, 10);
    assert_int_equal(plan_queue_head_number(&queue), 12);
    plan_queue_reset(&queue, 0, 0);
}

static void test_limit(void **state)
{
    (void)state;
    struct plan_queue queue = {0};
    plan_queue_reset(&queue, 1, 1);
    for (uint64_t i = 1; i <= PLAN_QUEUE_MAX; i++)
        assert_int_equal(offer(&queue, 1, i, 0), STATUS_OK);
    assert_int_equal(offer(&queue, 1, PLAN_QUEUE_MAX + 1, 0), STATUS_FULL);
    plan_queue_pop(&queue, 0);
    assert_int_equal(offer(&queue, 1, PLAN_QUEUE_MAX + 1, 0), STATUS_OK);
    for (uint64_t i = 2; i <= PLAN_QUEUE_MAX + 1; i++, plan_queue_pop(&queue, 0))
        assert_int_equal(plan_queue_head(&queue)->number, i);
    assert_null(plan_queue_head(&queue));
    assert_int_equal(offer(&queue, 1, PLAN_QUEUE_MAX + 2, 0), STATUS_OK);
    plan_queue_reset(&queue, 2, 1);
    assert_null(plan_queue_head(&queue));
    plan_queue_reset(&queue, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_limit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
