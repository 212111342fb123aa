/* AVX2: `vpmaddubsw` multiplies 32 stored weights with 32 activations into 16-bit pairs. */
#include "quantize.h"
#include "ternary.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET __attribute__((always_inline)) static inline

enum { VECTOR = 32, FLUSH = 512 /* columns: 16-bit sums hold 16 times 2 products of 8 * 127 */ };

static int supported(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

TARGET static void quantize(const float *x, long n, int8_t *q, float *s, int32_t *sum) {
    quantize_body(x, n, q, s, sum);
}

INLINE __m256i load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Weights 1 and 3 stay where they are in each nibble, worth four times as much: one shift less. */
#define STEP(packed, column)                                                                  \
    {                                                                                         \
        const __m256i v = load(packed), high = _mm256_srli_epi16(v, 4);                       \
        const __m256i w[4] = {_mm256_and_si256(v, first), _mm256_and_si256(v, second),        \
                              _mm256_and_si256(high, first), _mm256_and_si256(high, second)}; \
        for (int t = 0; t < tokens; t++) {                                                    \
            const __m256i a = load(x + t * stride + (column));                                \
            for (int i = 0; i < 4; i++)                                                       \
                narrow[t][i] = _mm256_add_epi16(narrow[t][i], _mm256_maddubs_epi16(w[i], a)); \
        }                                                                                     \
    }

/* Four vectors of eight sums to four sums. */
INLINE __m128i reduce(const __m256i s[4]) {
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(s[0], s[1]),
                                          _mm256_hadd_epi32(s[2], s[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

/* `tokens` is a constant wherever this is called, so that all sums of a step stay in registers. */
INLINE void dot_tokens(const uint8_t *packed, long columns, const int8_t *x, long stride,
                       const int tokens, int32_t *sums) {
    const __m256i first = _mm256_set1_epi8(3), second = _mm256_set1_epi8(12);
    const __m256i ones = _mm256_set1_epi16(1);
    const long whole = columns / VECTOR * VECTOR;
    __m256i wide[2][4];
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++) wide[t][i] = _mm256_setzero_si256();
    for (long c = 0; c < columns;) {
        __m256i narrow[2][4];
        for (int t = 0; t < tokens; t++)
            for (int i = 0; i < 4; i++) narrow[t][i] = _mm256_setzero_si256();
        if (c == whole) {
            uint8_t rest[VECTOR] = {0};
            memcpy(rest, packed + c, (size_t)(columns - c));
            STEP(rest, c)
            c = columns;
        }
        const long end = c + FLUSH < whole ? c + FLUSH : whole;
        for (; c + 2 * VECTOR <= end; c += 2 * VECTOR) {
            _mm_prefetch((const char *)packed + c + PREFETCH, _MM_HINT_T0);
            STEP(packed + c, c)
            STEP(packed + c + VECTOR, c + VECTOR)
        }
        for (; c < end; c += VECTOR) STEP(packed + c, c)
        for (int t = 0; t < tokens; t++)
            for (int i = 0; i < 4; i++)
                wide[t][i] = _mm256_add_epi32(wide[t][i], _mm256_madd_epi16(narrow[t][i], ones));
    }
    for (int t = 0; t < tokens; t++) {
        const __m128i total = _mm_srav_epi32(reduce(wide[t]), _mm_setr_epi32(0, 2, 0, 2));
        _mm_storeu_si128((__m128i *)(sums + 4 * t), total);
    }
}

TARGET static void dot(const uint8_t *packed, long columns, const int8_t *x, long stride,
                       long tokens, int32_t *sums) {
    if (tokens == 2)
        dot_tokens(packed, columns, x, stride, 2, sums);
    else
        dot_tokens(packed, columns, x, stride, 1, sums);
}

/* A tile: for each vector of columns, one vector of each of the four rows. */
INLINE void unpack_vector(__m256i v, uint8_t *tile) {
    const __m256i mask = _mm256_set1_epi8(3);
    for (int i = 0; i < 4; i++, v = _mm256_srli_epi16(v, 2))
        _mm256_storeu_si256((__m256i *)(tile + i * VECTOR), _mm256_and_si256(v, mask));
}

TARGET static void unpack(const uint8_t *packed, long columns, uint8_t *tile) {
    long c = 0;
    for (; c + VECTOR <= columns; c += VECTOR) unpack_vector(load(packed + c), tile + 4 * c);
    for (; c < columns || c % ALIGNMENT; c += VECTOR) {
        uint8_t rest[VECTOR] = {0};
        if (c < columns) memcpy(rest, packed + c, (size_t)(columns - c));
        unpack_vector(load(rest), tile + 4 * c);
    }
}

/* Unlike `dot_tokens`, this leaves nothing to do between two products: no masks, no shifts. */
INLINE void multiply_tokens(const uint8_t *tile, long columns, const int8_t *x, long stride,
                            const int tokens, int32_t *sums) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i s[2][4];
    for (int t = 0; t < tokens; t++)
        for (int i = 0; i < 4; i++) s[t][i] = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (long c = 0; c < columns; c += VECTOR) {
        __m256i a[2];
        for (int t = 0; t < tokens; t++) a[t] = load(x + t * stride + c);
        for (int i = 0; i < 4; i++) {
            const __m256i w = load(tile + 4 * c + i * VECTOR);
            for (int t = 0; t < tokens; t++)
                s[t][i] = _mm256_add_epi16(s[t][i], _mm256_maddubs_epi16(w, a[t]));
        }
    }
    for (int t = 0; t < tokens; t++) {
        __m128i *to = (__m128i *)(sums + 4 * t);
        for (int i = 0; i < 4; i++) s[t][i] = _mm256_madd_epi16(s[t][i], ones);
        _mm_storeu_si128(to, _mm_add_epi32(_mm_loadu_si128(to), reduce(s[t])));
    }
}

TARGET static void multiply(const uint8_t *tile, long columns, const int8_t *x, long stride,
                            long tokens, int32_t *sums) {
    long t = 0;
    for (; t + 2 <= tokens; t += 2)
        multiply_tokens(tile, columns, x + t * stride, stride, 2, sums + 4 * t);
    if (t < tokens) multiply_tokens(tile, columns, x + t * stride, stride, 1, sums + 4 * t);
}

const struct path trivium_path_avx2 = {"avx2", supported, quantize, dot, 2, unpack, multiply};
#endif
