/* Plain C for any machine; the compiler's own vectors. */
#include "quantize.h"
#include "ternary.h"

static int supported(void) { return 1; }

static void quantize(const float *x, long n, int8_t *q, float *s, int32_t *sum) {
    quantize_body(x, n, q, s, sum);
}

static void dot(const uint8_t *packed, long columns, const int8_t *x, long stride, long tokens,
                int32_t *sums) {
    (void)stride, (void)tokens;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (long c = 0; c < columns; c++) {
        const int32_t v = packed[c], a = x[c];
        s0 += (v & 3) * a;
        s1 += ((v >> 2) & 3) * a;
        s2 += ((v >> 4) & 3) * a;
        s3 += (v >> 6) * a;
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
}

const struct path trivium_path_portable = {"portable", supported, quantize, dot, 1, NULL, NULL};
