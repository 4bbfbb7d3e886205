/*
 * block.cpp - runs kernels: block after block, the threads of a block as fibers.
 *
 * A thread runs until it ends or must wait for others; then the next one runs. Warps, and lanes within them, take turns
 * in an order drawn anew after every barrier from SIMGPU_SEED, so that code which relies on an order the hardware
 * does not promise gives different answers under different seeds.
 */
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <sys/mman.h>
#include <vector>

#include "internal.h"

#if !defined(__x86_64__)
#error "the simulated device switches fibers with x86-64 instructions"
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SANITIZER_STARTS(save, stack, bytes) __sanitizer_start_switch_fiber(save, stack, bytes)
#define SANITIZER_FINISHES(saved, stack, bytes) __sanitizer_finish_switch_fiber(saved, stack, bytes)
#else
#define SANITIZER_STARTS(save, stack, bytes) ((void)0)
#define SANITIZER_FINISHES(saved, stack, bytes) ((void)0)
#endif

/* Saves the registers that a call must keep on the stack, its top in *save, and goes on where `load` was saved. */
extern "C" void simgpu_switch(void **save, void *load);
asm(".text\n"
    ".globl simgpu_switch\n"
    ".type simgpu_switch, @function\n"
    "simgpu_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size simgpu_switch, .-simgpu_switch\n");

namespace simgpu
{

place here;

namespace
{

enum { STACK_BYTES = 128 << 10, NAN_BYTE = 0xff, SHARED_RED_BYTES = 1024 };
enum thread_state { THREAD_FRESH, THREAD_READY, THREAD_AT_WARP, THREAD_AT_BARRIER, THREAD_DONE };

struct fiber {
    void *stack; /* lowest address */
    void *top;   /* saved stack pointer while it does not run */
    void *sanitizer;
};

struct async_copy {
    void *to;
    const void *from;
    int n_bytes, group;
};

struct thread {
    thread_state state;
    fiber *runs_on;
    lane_exchange *lane; /* of its own */
    std::vector<async_copy> copies;
    int n_groups;
};

struct warp {
    int n_waiting, n_done; /* lanes */
    const char *what;      /* the warp instruction that they wait at */
};

struct machine {
    const char *kernel;
    const std::function<void()> *body;
    void *scheduler_top;
    void *scheduler_sanitizer;
    const void *scheduler_stack;
    size_t scheduler_stack_bytes;
    std::deque<fiber> fibers; /* all of them; none is given back */
    std::vector<fiber *> idle_fibers;
    std::vector<thread> threads;
    std::vector<warp> warps;
    std::vector<lane_exchange> lanes;
    std::vector<int> warp_order, lane_order;
    int n_threads, current;
    unsigned char *shared;
    size_t shared_bytes;
    uint64_t random;
};

machine m;

uint64_t next_random()
{
    uint64_t z = m.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

warp &warp_of(int index)
{
    return m.warps[(size_t)(index / WARP_LANES)];
}

void shuffle_order(std::vector<int> &order)
{
    for (size_t i = order.size(); i > 1; i--)
        std::swap(order[i - 1], order[next_random() % i]);
}

/* ---- fibers ---- */

void to_scheduler()
{
    thread &t = m.threads[(size_t)m.current];
    fiber *f = t.runs_on;
    SANITIZER_STARTS(&f->sanitizer, m.scheduler_stack, m.scheduler_stack_bytes);
    simgpu_switch(&f->top, m.scheduler_top);
    SANITIZER_FINISHES(f->sanitizer, &m.scheduler_stack, &m.scheduler_stack_bytes);
}

void fiber_main()
{
    SANITIZER_FINISHES(nullptr, &m.scheduler_stack, &m.scheduler_stack_bytes);
    for (;;) {
        (*m.body)();
        m.threads[(size_t)m.current].state = THREAD_DONE;
        warp_of(m.current).n_done++;
        to_scheduler();
    }
}

fiber *new_fiber()
{
    void *stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED)
        stop("no memory for the stack of a thread");
    mprotect(stack, 4096, PROT_NONE);
    m.fibers.push_back(fiber{stack, nullptr, nullptr});
    fiber *f = &m.fibers.back();
    /* As simgpu_switch leaves it: six registers, then where to go; the stack is aligned as after a call. */
    void **top = (void **)((char *)stack + STACK_BYTES) - 1;
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->top = top;
    return f;
}

fiber *take_fiber()
{
    if (m.idle_fibers.empty())
        return new_fiber();
    fiber *f = m.idle_fibers.back();
    m.idle_fibers.pop_back();
    return f;
}

void resume(int index)
{
    thread &t = m.threads[(size_t)index];
    if (t.state == THREAD_FRESH)
        t.runs_on = take_fiber();
    t.state = THREAD_READY;
    m.current = index;
    here.thread.x = (unsigned)index;
    SANITIZER_STARTS(&m.scheduler_sanitizer, t.runs_on->stack, STACK_BYTES);
    simgpu_switch(&m.scheduler_top, t.runs_on->top);
    SANITIZER_FINISHES(m.scheduler_sanitizer, nullptr, nullptr);
    if (t.state == THREAD_DONE) {
        m.idle_fibers.push_back(t.runs_on);
        t.runs_on = nullptr;
    }
}

/* ---- a block ---- */

[[noreturn]] void stop_here(const char *why)
{
    stop("'%s', block %u,%u,%u, thread %d: %s", m.kernel, here.block.x, here.block.y, here.block.z, m.current, why);
}

/* Lanes run until each is done or waits for more than its warp. */
void run_warp(int warp)
{
    for (bool moved = true; moved;) {
        moved = false;
        for (int lane : m.lane_order) {
            int index = warp * WARP_LANES + lane;
            thread_state state = m.threads[(size_t)index].state;
            if (state == THREAD_FRESH || state == THREAD_READY) {
                resume(index);
                moved = true;
            }
        }
    }
}

/* After no thread can run: all are done (true), or all wait at the barrier and go on (false). */
bool end_or_release()
{
    int n_done = 0, n_at_barrier = 0;
    for (int i = 0; i < m.n_threads; i++) {
        thread &t = m.threads[(size_t)i];
        m.current = t.state == THREAD_AT_WARP ? i : m.current;
        n_done += t.state == THREAD_DONE;
        n_at_barrier += t.state == THREAD_AT_BARRIER;
    }
    if (n_done == m.n_threads)
        return true;
    if (n_done + n_at_barrier < m.n_threads) {
        char why[128];
        snprintf(why, sizeof(why), "waits at '%s' for lanes of its warp that do not come",
                 warp_of(m.current).what);
        stop_here(why);
    }
    if (n_done)
        stop_here("some threads wait at a barrier after others have ended");
    for (int i = 0; i < m.n_threads; i++)
        m.threads[(size_t)i].state = THREAD_READY;
    return false;
}

void run_block()
{
    memset(m.shared, NAN_BYTE, m.shared_bytes);
    red_fill(m.shared + m.shared_bytes, SHARED_RED_BYTES);
    for (int i = 0; i < m.n_threads; i++) {
        thread &t = m.threads[(size_t)i];
        t.state = THREAD_FRESH;
        t.copies.clear();
        t.n_groups = 0;
    }
    m.warps.assign((size_t)(m.n_threads / WARP_LANES), warp{});
    do {
        shuffle_order(m.warp_order);
        shuffle_order(m.lane_order);
        for (int warp : m.warp_order)
            run_warp(warp);
    } while (!end_or_release());
    for (int i = 0; i < m.n_threads; i++)
        if (!m.threads[(size_t)i].copies.empty())
            stop_here("ended with asynchronous copies under way");
    unsigned char red[SHARED_RED_BYTES + 2];
    unsigned char *as_painted = red + ((uintptr_t)red ^ ((uintptr_t)m.shared + m.shared_bytes)) % 2;
    red_fill(as_painted, SHARED_RED_BYTES);
    if (memcmp(m.shared + m.shared_bytes, as_painted, SHARED_RED_BYTES) != 0)
        stop_here("wrote behind its shared memory");
}

void prepare(const char *name, dim3 block, size_t shared_bytes, const std::function<void()> &body)
{
    if (!m.shared) {
        m.shared = (unsigned char *)aligned_alloc(1024, SHARED_BYTES_MAX + SHARED_RED_BYTES);
        m.random = (uint64_t)setting("SIMGPU_SEED", 1);
        for (int i = 0; i < WARP_LANES; i++)
            m.lane_order.push_back(i);
    }
    m.kernel = name;
    m.body = &body;
    m.shared_bytes = shared_bytes;
    m.n_threads = (int)block.x;
    if ((int)m.threads.size() < m.n_threads) {
        m.threads.resize((size_t)m.n_threads);
        m.lanes.resize((size_t)m.n_threads);
    }
    for (int i = 0; i < m.n_threads; i++)
        m.threads[(size_t)i].lane = &m.lanes[(size_t)i];
    m.warp_order.clear();
    for (int i = 0; i < m.n_threads / WARP_LANES; i++)
        m.warp_order.push_back(i);
}

uint3 block_at(uint64_t number, dim3 grid)
{
    return uint3{(unsigned)(number % grid.x), (unsigned)(number / grid.x % grid.y),
                 (unsigned)(number / grid.x / grid.y)};
}

} // namespace

const char *kernel_name()
{
    return m.kernel;
}

void run_kernel(const char *name, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body)
{
    prepare(name, block, shared_bytes, body);
    here.block_dim = block;
    here.grid_dim = grid;
    here.thread = uint3{0, 0, 0};
    std::vector<int> order((size_t)grid.x * grid.y * grid.z);
    for (size_t i = 0; i < order.size(); i++)
        order[i] = (int)i;
    shuffle_order(order);
    for (int number : order) {
        here.block = block_at((uint64_t)number, grid);
        run_block();
    }
}

void block_barrier()
{
    m.threads[(size_t)m.current].state = THREAD_AT_BARRIER;
    to_scheduler();
}

unsigned char *shared_memory()
{
    return m.shared;
}

/* The last lane to come does the work for all and goes on; the others become ready. */
lane_exchange *warp_meet(unsigned mask, const char *what, const void *in, size_t in_bytes, warp_function function)
{
    thread &self = m.threads[(size_t)m.current];
    warp &own = warp_of(m.current);
    if (mask != 0xffffffffu)
        stop_here("warp instructions of some lanes only are not modelled");
    if (in_bytes > EXCHANGE_BYTES)
        stop_here("a lane brings too many bytes");
    if (in_bytes)
        memcpy(self.lane->in, in, in_bytes);
    if (own.n_done)
        stop_here("a warp instruction after lanes have ended");
    if (own.n_waiting++ == 0)
        own.what = what;
    else if (own.what != what && strcmp(own.what, what) != 0)
        stop_here("lanes of a warp are at different instructions");
    if (own.n_waiting < WARP_LANES) {
        self.state = THREAD_AT_WARP;
        to_scheduler();
        return m.threads[(size_t)m.current].lane;
    }
    thread *lanes = &m.threads[(size_t)(m.current / WARP_LANES * WARP_LANES)];
    if (function)
        function(lanes[0].lane);
    for (int i = 0; i < WARP_LANES; i++)
        lanes[i].state = THREAD_READY;
    own.n_waiting = 0;
    return self.lane;
}

void copy_async_16(void *shared, const void *global, int n_bytes)
{
    if ((uintptr_t)shared % 16 || (uintptr_t)global % 16 || n_bytes < 0 || n_bytes > 16)
        stop_here("an asynchronous copy of 16 bytes that is not aligned to 16");
    unsigned char *to = (unsigned char *)shared;
    if (to < m.shared || to + 16 > m.shared + m.shared_bytes)
        stop_here("an asynchronous copy to what is not shared memory");
    thread &t = m.threads[(size_t)m.current];
    t.copies.push_back(async_copy{shared, global, n_bytes, t.n_groups});
}

void copy_async_commit()
{
    m.threads[(size_t)m.current].n_groups++;
}

void copy_async_wait(int n_groups_left)
{
    thread &t = m.threads[(size_t)m.current];
    std::vector<async_copy> later;
    for (async_copy &copy : t.copies) {
        if (copy.group >= t.n_groups - n_groups_left) {
            later.push_back(copy);
            continue;
        }
        memset(copy.to, 0, 16);
        memcpy(copy.to, copy.from, (size_t)copy.n_bytes);
    }
    t.copies.swap(later);
}

} // namespace simgpu
