/*
 * code_path.c - which instruction sets this machine, its operating system and MGPT_CPU_PATH allow.
 *
 * CPUID says what the processor has, XCR0 which registers the system saves. The tile registers of
 * AMX must also be asked for, once a process, before the first tile instruction (Linux: arch_prctl
 * ARCH_REQ_XCOMP_PERM); all threads of the process have them from then on. Bits: Intel SDM volume
 * 2A, CPUID leaves 1, 7.0 and 7.1; volume 1, 13.3.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/stream.h"

static const char *const names[CODE_PATH_COUNT] = {"portable", "avx2", "avx512bf16", "amx"};

const char *code_path_name(enum code_path path)
{
    return names[path];
}

#if defined(__x86_64__)
#include <cpuid.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static int all_bits(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}

int code_path_available(enum code_path path)
{
    uint32_t a, b, c, d;
    if (path == CODE_PATH_PORTABLE)
        return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, fma = 1u << 12;
    if (!all_bits(c, osxsave | avx | fma) || !all_bits(saved_state(), 6))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 5))
        return 0;
    if (path == CODE_PATH_AVX2)
        return 1;
    const uint32_t amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    int tiles = all_bits(d, amx_bf16 | amx_tile) && all_bits(saved_state(), 3ull << 17);
    const uint32_t avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* F, DQ, BW, VL */
    if (!all_bits(b, avx512) || !all_bits(saved_state(), 0xe6))
        return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & 1u << 5))
        return 0;
    if (path == CODE_PATH_AVX512BF16)
        return 1;
    return tiles && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#else
int code_path_available(enum code_path path)
{
    return path == CODE_PATH_PORTABLE;
}
#endif

enum status code_path_pick(enum code_path *out, struct error *err)
{
    const char *forced = getenv("MGPT_CPU_PATH");
    int best = CODE_PATH_COUNT - 1;
    if (forced && *forced) {
        while (best >= 0 && strcmp(forced, names[best]))
            best--;
        if (best < 0)
            return error_set(err, STATUS_INVALID,
                             "MGPT_CPU_PATH is '%s', expected amx, avx512bf16, avx2 or portable",
                             forced);
        if (!code_path_available((enum code_path)best))
            return error_set(err, STATUS_UNSUPPORTED,
                             "MGPT_CPU_PATH is '%s', which this machine does not have", forced);
    }
    while (!code_path_available((enum code_path)best))
        best--;
    *out = (enum code_path)best;
    return STATUS_OK;
}
