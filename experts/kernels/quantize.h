/* Per-token int8 quantization of activations, in plain C: each path compiles it for its own
 * instruction set, and the compiler makes vectors of it. */
#ifndef TRIVIUM_QUANTIZE_H
#define TRIVIUM_QUANTIZE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* As `experts.ternary.quantize_activations`, bit for bit. A NaN among x makes s NaN: floats
 * without their sign compare like integers, NaN above all. */
__attribute__((always_inline)) static inline void quantize_body(const float *restrict x, long n,
                                                                int8_t *restrict q, float *s,
                                                                int32_t *sum) {
    int32_t bits = 0;
    for (long i = 0; i < n; i++) {
        int32_t b;
        memcpy(&b, x + i, sizeof b);
        b &= 0x7fffffff;
        bits = b > bits ? b : bits;
    }
    float largest;
    memcpy(&largest, &bits, sizeof largest);
    /* torch computes 127 / m as (1 / m) * 127 */
    const float scale = (1.0f / (largest < 1e-5f ? 1e-5f : largest)) * 127.0f;
    int32_t total = 0;
    for (long i = 0; i < n; i++) {
        float r = rintf(x[i] * scale);
        r = r > -128.0f ? r : -128.0f;
        r = r < 127.0f ? r : 127.0f;
        const int32_t v = (int32_t)r;
        q[i] = (int8_t)v;
        total += v;
    }
    *s = scale;
    *sum = total;
}

#endif
