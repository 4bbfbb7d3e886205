/*
 * confine.c - prctl, capset and a classic BPF program over system call numbers.
 *
 * The filter names what is refused and lets the rest pass: libraries differ between systems in the
 * harmless calls they make, and a list of what is allowed would break with each of them.
 */
#include "base/confine.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define CONFINE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define CONFINE_ARCH AUDIT_ARCH_AARCH64
#else
#define CONFINE_ARCH 0
#endif

/* The leak sanitizer stops the threads of its process by ptrace. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

/* Refused to everyone. */
static const unsigned always[] = {
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_setns,
    SYS_unshare,
    SYS_open_by_handle_at,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_quotactl,
    SYS_syslog,
    SYS_vhangup,
    SYS_personality,
    SYS_fanotify_init,
#if defined(__x86_64__)
    SYS_iopl,
    SYS_ioperm,
    SYS_kexec_file_load,
    SYS_modify_ldt,
#endif
};

/* The newer ways to the same ends, and rings that carry system calls past this filter. Kernel
 * headers may be older than some of them; the numbers are the same on all processors. */
static const unsigned always_newer[] = {
    425, 426, 427, /* io_uring_setup, _enter, _register */
    428, 429,      /* open_tree, move_mount */
    430, 431, 432, /* fsopen, fsconfig, fsmount */
    433,           /* fspick */
    438,           /* pidfd_getfd */
    442,           /* mount_setattr */
};

/* Kinds of sockets that serving needs; the kernel's others are seldom used and often broken. */
static const unsigned socket_families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

/* Refused to leaves. clone() is looked at by its flags: threads need it. */
static const unsigned in_leaves[] = {
    SYS_execve,
    SYS_execveat,
#if defined(__x86_64__)
    SYS_fork,
    SYS_vfork,
#endif
};

enum {
    N_ALWAYS = sizeof(always) / sizeof(always[0]),
    N_ALWAYS_NEWER = sizeof(always_newer) / sizeof(always_newer[0]),
    N_SOCKET_FAMILIES = sizeof(socket_families) / sizeof(socket_families[0]),
    N_IN_LEAVES = sizeof(in_leaves) / sizeof(in_leaves[0]),
    CALL_CLONE3 = 435,
    NEW_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                     CLONE_NEWUTS | CLONE_NEWCGROUP,
    PROGRAM_MAX = 2 * (N_ALWAYS + N_ALWAYS_NEWER + N_IN_LEAVES) + N_SOCKET_FAMILIES + 24
};

struct program {
    struct sock_filter lines[PROGRAM_MAX];
    unsigned short n;
};

static void add_line(struct program *program, uint16_t code, uint32_t value, uint8_t if_true,
                     uint8_t if_false)
{
    program->lines[program->n++] = (struct sock_filter){code, if_true, if_false, value};
}

static void refuse(struct program *program, const unsigned *calls, int n)
{
    for (int i = 0; i < n; i++) {
        add_line(program, BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
        add_line(program, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
    }
}

/* Loads an argument of the call; only its low half counts where flags and families are. */
static void load_argument(struct program *program, int index)
{
    add_line(program, BPF_LD | BPF_W | BPF_ABS,
             (uint32_t)(offsetof(struct seccomp_data, args) + 8u * (unsigned)index), 0, 0);
}

static void answer(struct program *program, uint32_t action)
{
    add_line(program, BPF_RET | BPF_K, action, 0, 0);
}

/*
 * clone(): no new namespaces, in leaves threads alone; glibc's fork() is a clone(), too. The flags
 * of clone3() lie in memory that a filter cannot read: it does not exist here, and glibc takes
 * clone().
 */
static void check_clone(struct program *program, enum confine_kind kind)
{
    add_line(program, BPF_JMP | BPF_JEQ | BPF_K, CALL_CLONE3, 0, 1);
    answer(program, SECCOMP_RET_ERRNO | ENOSYS);
    add_line(program, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, kind == CONFINE_LEAF ? 6 : 4);
    load_argument(program, 0);
    add_line(program, BPF_JMP | BPF_JSET | BPF_K, NEW_NAMESPACES, 0, 1);
    answer(program, SECCOMP_RET_ERRNO | EPERM);
    if (kind == CONFINE_LEAF) {
        add_line(program, BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0);
        answer(program, SECCOMP_RET_ERRNO | EPERM);
    }
    answer(program, SECCOMP_RET_ALLOW);
}

static void check_socket(struct program *program)
{
    add_line(program, BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, N_SOCKET_FAMILIES + 3);
    load_argument(program, 0);
    for (int i = 0; i < N_SOCKET_FAMILIES; i++)
        add_line(program, BPF_JMP | BPF_JEQ | BPF_K, socket_families[i],
                 (uint8_t)(N_SOCKET_FAMILIES - i), 0);
    answer(program, SECCOMP_RET_ERRNO | EAFNOSUPPORT);
    answer(program, SECCOMP_RET_ALLOW);
}

/* Calls of a foreign architecture (32-bit programs on x86-64) have other numbers: the process ends.
 */
static void write_program(struct program *program, enum confine_kind kind)
{
    add_line(program, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
    add_line(program, BPF_JMP | BPF_JEQ | BPF_K, CONFINE_ARCH, 1, 0);
    add_line(program, BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    add_line(program, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
#if defined(__x86_64__)
    /* x32 numbers name the same calls once more. */
    add_line(program, BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);
    add_line(program, BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM, 0, 0);
#endif
    refuse(program, always, N_ALWAYS);
    refuse(program, always_newer, N_ALWAYS_NEWER);
    if (kind == CONFINE_LEAF)
        refuse(program, in_leaves, N_IN_LEAVES);
    check_clone(program, kind);
    check_socket(program);
    add_line(program, BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
}

/* Root keeps what reading other users' model folders takes, and nothing else; others have nothing
 * to lose. */
static enum status drop_capabilities(enum confine_kind kind, struct error *err)
{
    const uint32_t kept = 1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH |
                          (kind == CONFINE_PARENT ? 1u << CAP_NET_BIND_SERVICE : 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}, {0}};
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (capability > 31 || !(kept & 1u << capability))
            prctl(PR_CAPBSET_DROP, capability, 0, 0,
                  0); /* refused without CAP_SETPCAP: then there is little to drop */
    if (syscall(SYS_capget, &header, data) != 0)
        return error_set_errno(err, STATUS_IO, errno,
                               "cannot read the capabilities of this process");
    data[0].effective &= kept;
    data[0].permitted &= kept;
    data[0].inheritable = data[1].effective = data[1].permitted = data[1].inheritable = 0;
    if (syscall(SYS_capset, &header, data) != 0)
        return error_set_errno(err, STATUS_IO, errno,
                               "cannot drop the capabilities of this process");
    return STATUS_OK;
}

enum status confine_process(enum confine_kind kind, struct error *err)
{
    if (IS_SANITIZED)
        return error_set(err, STATUS_UNSUPPORTED, "built with a sanitizer, which needs ptrace");
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_set_errno(err, STATUS_UNSUPPORTED, errno, "cannot give up new privileges");
    enum status st = drop_capabilities(kind, err);
    if (st != STATUS_OK)
        return st;
    if (CONFINE_ARCH == 0)
        return error_set(err, STATUS_UNSUPPORTED, "no seccomp filter for this processor");
    struct program program = {.n = 0};
    write_program(&program, kind);
    struct sock_fprog filter = {program.n, program.lines};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0)
        return error_set_errno(err, STATUS_UNSUPPORTED, errno, "cannot install a seccomp filter");
    return STATUS_OK;
}
