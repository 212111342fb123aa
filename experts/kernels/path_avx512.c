/* AVX-512 VNNI: `vpdpbusd` multiplies 64 stored weights with 64 activations into 32-bit sums. */
#include "quantize.h"
#include "ternary.h"

#if defined(__x86_64__)
#if defined(TRIVIUM_EMULATE) /* the same code through SIMDe: tested where no CPU has it */
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#define TARGET
#define SUPPORTED(feature) 1
#else
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))
#define SUPPORTED(feature) __builtin_cpu_supports(feature)
#endif
#define INLINE TARGET __attribute__((always_inline)) static inline

enum { VECTOR = 64 };

static int supported(void) {
    return SUPPORTED("avx512f") && SUPPORTED("avx512bw") && SUPPORTED("avx512vl") &&
           SUPPORTED("avx512dq") && SUPPORTED("avx512vnni");
}

TARGET static void quantize(const float *x, long n, int8_t *q, float *s, int32_t *sum) {
    quantize_body(x, n, q, s, sum);
}

INLINE __m512i load(const void *p) { return _mm512_loadu_si512(p); }

INLINE __m256i halve(__m512i s) {
    return _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
}

/* Four vectors of sixteen sums to four sums. */
INLINE __m128i reduce(const __m512i s[4]) {
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(halve(s[0]), halve(s[1])),
                                          _mm256_hadd_epi32(halve(s[2]), halve(s[3])));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* The bytes are masked but never shifted, so that sum i is worth 4^i times the product. */
#define STEP(s, packed, column)                                                        \
    {                                                                                  \
        const __m512i v = load(packed);                                                \
        for (int t = 0; t < tokens; t++) {                                             \
            const __m512i a = load(x + t * stride + (column));                         \
            for (int i = 0; i < 4; i++)                                                \
                s[t][i] = _mm512_dpbusd_epi32(s[t][i], _mm512_and_si512(v, masks[i]), a); \
        }                                                                              \
    }

/* `tokens` is a constant wherever this is called, so that all sums stay in registers. */
INLINE void dot_tokens(const uint8_t *packed, long columns, const int8_t *x, long stride,
                       const int tokens, int32_t *sums) {
    const __m512i masks[4] = {_mm512_set1_epi8(3), _mm512_set1_epi8(12), _mm512_set1_epi8(48),
                              _mm512_set1_epi8((char)192)};
    __m512i even[4][4], odd[4][4]; /* two sets hide the instruction's latency for one token */
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++) even[t][i] = odd[t][i] = _mm512_setzero_si512();
    long c = 0;
    for (; c + 2 * VECTOR <= columns; c += 2 * VECTOR) {
        __builtin_prefetch(packed + c + PREFETCH);
        __builtin_prefetch(packed + c + PREFETCH + VECTOR);
        STEP(even, packed + c, c)
        if (tokens > 2)
            STEP(even, packed + c + VECTOR, c + VECTOR)
        else
            STEP(odd, packed + c + VECTOR, c + VECTOR)
    }
    for (; c < columns; c += VECTOR) {
        uint8_t rest[VECTOR] = {0};
        memcpy(rest, packed + c, (size_t)(columns - c < VECTOR ? columns - c : VECTOR));
        STEP(even, rest, c)
    }
    for (int t = 0; t < tokens; t++) {
        for (int i = 0; i < 4; i++) even[t][i] = _mm512_add_epi32(even[t][i], odd[t][i]);
        const __m128i total = _mm_srav_epi32(reduce(even[t]), _mm_setr_epi32(0, 2, 4, 6));
        _mm_storeu_si128((__m128i *)(sums + 4 * t), total);
    }
}

DOT_UP_TO_FOUR

const struct path trivium_path_avx512 = {"avx512vnni", supported, quantize, dot, 4, NULL, NULL};
#endif
