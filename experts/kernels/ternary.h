/* What an instruction set must provide for products with packed ternary matrices.
 *
 * A packed row holds four rows of a matrix: byte c of it has, in bits 2i and 2i + 1, the weight
 * of row i at column c, stored as 0, 1, 2 for -1, 0, 1 (Hugging Face `bitnet`). Products are
 * computed with the stored values and int8 activations, exactly, in integers; subtracting the
 * sum of the activations then turns 0, 1, 2 into -1, 0, 1.
 */
#ifndef TRIVIUM_TERNARY_H
#define TRIVIUM_TERNARY_H

#include <stdint.h>

enum {
    ALIGNMENT = 64,      /* activations are padded with zeros to a multiple of this */
    PREFETCH = 4096,     /* bytes ahead of the one in use, where weights come from memory */
    TILE_COLUMNS = 2048, /* 16-bit sums hold 64 times 2 products of 2 * 127 in each of 16 places */
};

/* One way to compute; all of them give the same integers. */
struct path {
    const char *name;
    int (*supported)(void);
    /* s = 127 / max(max|x|, 1e-5); q = clip(round(x * s), -128, 127), halves to even; `sum` of q */
    void (*quantize)(const float *x, long n, int8_t *q, float *s, int32_t *sum);
    /* sums[4 * t + i] = sum over columns of stored weight i times token t, for up to `tokens`
     * tokens `stride` bytes apart, padded with zeros */
    void (*dot)(const uint8_t *packed, long columns, const int8_t *x, long stride, long tokens,
                int32_t *sums);
    long tokens; /* the most that one call of `dot` takes */
    /* Where many tokens go faster with weights unpacked first; otherwise both are NULL.
     * `tile` holds 4 * TILE_COLUMNS weights in the path's own order, zeros up to a multiple of
     * ALIGNMENT columns */
    void (*unpack)(const uint8_t *packed, long columns, uint8_t *tile);
    /* sums[4 * t + i] += sum over the tile's columns as in `dot`, for any `tokens` */
    void (*multiply)(const uint8_t *tile, long columns, const int8_t *x, long stride, long tokens,
                     int32_t *sums);
};

/* A path's `dot` for up to four tokens, from its inlined `dot_tokens`: for each number of them
 * the compiler keeps all sums in registers. */
#define DOT_UP_TO_FOUR                                                                         \
    TARGET static void dot(const uint8_t *packed, long columns, const int8_t *x, long stride,  \
                           long tokens, int32_t *sums) {                                       \
        switch (tokens) {                                                                      \
        case 4: dot_tokens(packed, columns, x, stride, 4, sums); break;                        \
        case 3: dot_tokens(packed, columns, x, stride, 3, sums); break;                        \
        case 2: dot_tokens(packed, columns, x, stride, 2, sums); break;                        \
        default: dot_tokens(packed, columns, x, stride, 1, sums);                              \
        }                                                                                      \
    }

extern const struct path trivium_path_portable;
extern const struct path trivium_path_avx2;
extern const struct path trivium_path_avx512;
extern const struct path trivium_path_neon;

#endif
