/* NEON with dot products (ARMv8.2): `sdot` multiplies 16 weights with 16 activations. */
#include "quantize.h"
#include "ternary.h"

#if defined(__aarch64__) || defined(TRIVIUM_EMULATE)
#if defined(TRIVIUM_EMULATE) /* the same code through SIMDe: tested where no CPU has it */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>
#define TARGET
#else
#include <arm_neon.h>
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#endif
#define INLINE TARGET __attribute__((always_inline)) static inline

enum { VECTOR = 16 };

static int supported(void) {
#if defined(__linux__) && defined(__aarch64__)
    return (getauxval(AT_HWCAP) >> 20) & 1; /* HWCAP_ASIMDDP */
#else
    return 1; /* every Apple machine with ARM has it */
#endif
}

TARGET static void quantize(const float *x, long n, int8_t *q, float *s, int32_t *sum) {
    quantize_body(x, n, q, s, sum);
}

/* `tokens` is a constant wherever this is called, so that all sums stay in registers. */
INLINE void dot_tokens(const uint8_t *packed, long columns, const int8_t *x, long stride,
                       const int tokens, int32_t *sums) {
    const uint8x16_t mask = vdupq_n_u8(3);
    int32x4_t s[4][4];
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++) s[t][i] = vdupq_n_s32(0);
    for (long c = 0; c < columns; c += VECTOR) {
        uint8_t rest[VECTOR] = {0};
        const uint8_t *from = packed + c;
        if (columns - c < VECTOR) from = memcpy(rest, from, (size_t)(columns - c));
        __builtin_prefetch(packed + c + PREFETCH);
        const uint8x16_t v = vld1q_u8(from);
        const int8x16_t w[4] = {
            vreinterpretq_s8_u8(vandq_u8(v, mask)),
            vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 2), mask)),
            vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(v, 4), mask)),
            vreinterpretq_s8_u8(vshrq_n_u8(v, 6)),
        };
        for (int t = 0; t < tokens; t++) {
            const int8x16_t a = vld1q_s8(x + t * stride + c);
            for (int i = 0; i < 4; i++) s[t][i] = vdotq_s32(s[t][i], w[i], a);
        }
    }
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++) sums[4 * t + i] = vaddvq_s32(s[t][i]);
}

DOT_UP_TO_FOUR

const struct path trivium_path_neon = {"neon", supported, quantize, dot, 4, NULL, NULL};
#endif
