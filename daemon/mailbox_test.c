/*
 * Goal: messages come in order and once, the descriptor says truly whether one waits, and nothing
 * leaks when either side goes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <poll.h>
#include <pthread.h>
#include <cmocka.h>

#include "daemon/mailbox.h"

enum { N_THREADS = 4, N_EACH = 2000 };

struct letter {
    struct mail mail;
    int sender, number;
};

static int n_alive; /* letters made and not destroyed; atomic */

static void destroy_letter(struct mail *mail)
{
    __atomic_sub_fetch(&n_alive, 1, __ATOMIC_RELAXED);
    free(mail);
}

static struct mail *letter(int sender, int number)
{
    struct letter *letter = calloc(1, sizeof(*letter));
    __atomic_add_fetch(&n_alive, 1, __ATOMIC_RELAXED);
    letter->mail.destroy = destroy_letter;
    letter->sender = sender;
    letter->number = number;
    return &letter->mail;
}

static bool is_readable(const struct mailbox *box)
{
    struct pollfd ready = {.fd = mailbox_fd(box), .events = POLLIN};
    return poll(&ready, 1, 0) == 1;
}

static void test_order_and_descriptor(void **state)
{
    struct mailbox *box;
    (void)state;
    assert_int_equal(mailbox_create(&box, 3, NULL), STATUS_OK);
    assert_false(is_readable(box));
    for (int i = 0; i < 3; i++)
        assert_int_equal(mailbox_post(box, letter(0, i)), STATUS_OK);
    assert_int_equal(mailbox_post(box, letter(0, 3)), STATUS_FULL);
    for (int i = 0; i < 3; i++) {
        assert_true(is_readable(box));
        struct letter *got = (struct letter *)mailbox_wait(box, 0);
        assert_int_equal(got->number, i);
        mail_destroy(&got->mail);
    }
    assert_false(is_readable(box));
    assert_null(mailbox_wait(box, 1));
    mailbox_drop(box);
    assert_int_equal(n_alive, 0);
}

static void test_closed_box_frees(void **state)
{
    struct mailbox *box;
    (void)state;
    assert_int_equal(mailbox_create(&box, 0, NULL), STATUS_OK);
    struct mailbox *sender = mailbox_hold(box);
    mailbox_post(box, letter(0, 0));
    mailbox_close(box);
    mailbox_drop(box);
    assert_int_equal(mailbox_post(sender, letter(0, 1)), STATUS_CANCELED);
    mailbox_drop(sender);
    assert_int_equal(n_alive, 0);
}

static void test_last_holder_frees_unread(void **state)
{
    struct mailbox *box;
    (void)state;
    assert_int_equal(mailbox_create(&box, 0, NULL), STATUS_OK);
    mailbox_post(box, letter(0, 0));
    mailbox_drop(box);
    mailbox_drop(NULL);
    assert_int_equal(n_alive, 0);
}

struct sender {
    struct mailbox *box;
    int index;
};

static void *send_all(void *context)
{
    struct sender *sender = context;
    for (int i = 0; i < N_EACH; i++)
        mailbox_post(sender->box, letter(sender->index, i));
    return NULL;
}

static void test_many_senders(void **state)
{
    struct mailbox *box;
    pthread_t threads[N_THREADS];
    struct sender senders[N_THREADS];
    int next[N_THREADS] = {0};
    (void)state;
    assert_int_equal(mailbox_create(&box, 0, NULL), STATUS_OK);
    for (int i = 0; i < N_THREADS; i++) {
        senders[i] = (struct sender){box, i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    for (int n = 0; n < N_THREADS * N_EACH; n++) {
        struct letter *got = NULL;
        while (!got)
            got = (struct letter *)mailbox_wait(box, 1000);
        assert_int_equal(got->number, next[got->sender]++);
        mail_destroy(&got->mail);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_null(mailbox_take(box));
    mailbox_drop(box);
    assert_int_equal(n_alive, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_descriptor),
        cmocka_unit_test(test_closed_box_frees),
        cmocka_unit_test(test_last_holder_frees_unread),
        cmocka_unit_test(test_many_senders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
