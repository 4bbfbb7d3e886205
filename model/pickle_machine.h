/*
 * pickle_machine.h - stack, marks, memo and input of the pickle reader. For pickle.c only.
 *
 * Every function checks its limits and reports with byte and operation. The stack above the newest
 * mark is all an operation may touch: what lies below belongs to a container that is not finished.
 */
#ifndef MGPT_MODEL_PICKLE_MACHINE_H
#define MGPT_MODEL_PICKLE_MACHINE_H

#include "model/pickle_value.h"

struct pickle_machine {
    struct pickle *pickle;
    const unsigned char *start, *at, *end;
    unsigned char op;
    uint32_t n_ops;
    pickle_id *stack; /* [PICKLE_STACK_MAX] */
    uint32_t n_stack;
    uint32_t marks[PICKLE_DEPTH_MAX]; /* n_stack when each was set */
    uint32_t n_marks;
    pickle_id *memo;
    uint32_t memo_capacity, n_memo;
    struct error *err;
};

/* STATUS_INVALID with the place in the pickle and `what`. */
enum status pickle_machine_fail(struct pickle_machine *m, const char *what);

/* STATUS_NOMEM, naming the pickle. */
enum status pickle_machine_no_memory(struct pickle_machine *m);

/* Makes room for one more element of an array that doubles. */
bool pickle_machine_grow(void **array, uint32_t n, uint32_t *capacity, size_t element_bytes);

/* A new value goes to the array of values and onto the stack; push() takes one that is there. */
enum status pickle_machine_push(struct pickle_machine *m, pickle_id value);
enum status pickle_machine_push_value(struct pickle_machine *m, struct pickle_value value);
enum status pickle_machine_push_kind(struct pickle_machine *m, enum pickle_kind kind);
enum status pickle_machine_push_int(struct pickle_machine *m, enum pickle_kind kind,
                                    int64_t number);
enum status pickle_machine_push_container(struct pickle_machine *m, enum pickle_kind kind);

/* Values above the newest mark; those below belong to somebody who is not finished. */
uint32_t pickle_machine_available(const struct pickle_machine *m);

/* STATUS_INVALID unless n values are available. */
enum status pickle_machine_need(struct pickle_machine *m, uint32_t n);

/* Only after need(). */
pickle_id pickle_machine_pop(struct pickle_machine *m);
pickle_id pickle_machine_top(const struct pickle_machine *m);

/* The n newest values become one tuple; only after need() or pop_mark(). */
enum status pickle_machine_push_tuple(struct pickle_machine *m, uint32_t n);

/* Takes the newest mark away; *n is how many values stand above it. */
enum status pickle_machine_pop_mark(struct pickle_machine *m, uint32_t *n);

/* STATUS_INVALID when PICKLE_DEPTH_MAX marks are open. */
enum status pickle_machine_push_mark(struct pickle_machine *m);

/* Moves the n newest values into the list or dict below them; into anything else they vanish. */
enum status pickle_machine_append_items(struct pickle_machine *m, uint32_t n,
                                        enum pickle_kind kind);

/* The newest value under an index; the value of an index onto the stack. */
enum status pickle_machine_memo_put(struct pickle_machine *m, uint64_t index);
enum status pickle_machine_memo_get(struct pickle_machine *m, uint64_t index);

/* n little-endian bytes as a number. */
enum status pickle_machine_take_number(struct pickle_machine *m, int n, uint64_t *out);

/* A length of n bytes, then as many bytes. */
enum status pickle_machine_take_bytes(struct pickle_machine *m, int n, struct pickle_text *out);

/* Up to the next line feed, which is skipped. */
enum status pickle_machine_take_line(struct pickle_machine *m, struct pickle_text *out);

#endif
