/* y = (W_q · x_q) · γ / s (+ bias): BitNet b1.58 (W1.58A8) on packed weights, for any CPU.
 *
 * Plain C behind a small C interface: `trivium_paths` says what this machine can run,
 * `trivium_linear` computes. Quantization, integer products and scaling give the same bits as
 * the reference in experts/ternary.py, on every path and with any number of threads.
 */
#include <stdlib.h>
#include <string.h>

#include "ternary.h"

#define EXPORT __attribute__((visibility("default")))

enum {
    ROW_BLOCK = 8,         /* packed rows that a thread takes at a time; they stay in its cache */
    MOST_TOKENS = 4,       /* of any path's `dot` */
    TILED_FROM = 4,        /* tokens that are worth unpacking weights for */
    TOKEN_BLOCK = 64,      /* tokens that a tile is used for; their columns stay in the cache */
    SERIAL_BELOW = 1 << 18 /* products that are not worth waking other threads for */
};

enum dtype { FLOAT32 = 0, BFLOAT16 = 1 };

/* GOMP_parallel's signature: run `body(data)` on `threads` threads and wait for all. */
typedef void (*parallel_for)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

/* One call, as the caller describes it. Matrices are contiguous, row by row. */
struct linear {
    const struct path *path;
    const void *x;         /* [tokens, in], dtype */
    const uint8_t *packed; /* [ceil(out / 4), in] */
    const float *gamma;    /* [out] */
    const void *bias;      /* [out], dtype, or NULL */
    void *y;               /* [tokens, out], dtype */
    int64_t tokens, in, out;
    int64_t dtype, threads;
    parallel_for parallel; /* NULL: one thread */
};

/* A call under way. */
struct job {
    const struct linear *call;
    int8_t *q;             /* [tokens, stride], zeros beyond `in` */
    float *scales;         /* [tokens] */
    int32_t *sums;         /* [tokens] */
    long stride, quarter;  /* bytes between tokens; packed rows */
    long next;             /* the next piece of work to take */
    int failed;
};

static float bf16_to_float(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

static uint16_t float_to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value != value) return 0x7fc0;
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16); /* nearest, halves to even */
}

static long take(struct job *job, long many) {
    return __atomic_fetch_add(&job->next, many, __ATOMIC_RELAXED);
}

static void quantize_token(struct job *job, long t, float *row) {
    const struct linear *call = job->call;
    const float *x = (const float *)call->x + t * call->in;
    if (call->dtype == BFLOAT16) {
        const uint16_t *from = (const uint16_t *)call->x + t * call->in;
        for (long i = 0; i < call->in; i++) row[i] = bf16_to_float(from[i]);
        x = row;
    }
    int8_t *q = job->q + t * job->stride;
    call->path->quantize(x, call->in, q, job->scales + t, job->sums + t);
    memset(q + call->in, 0, (size_t)(job->stride - call->in));
}

static void quantize_tokens(void *data) {
    struct job *job = data;
    float *row = malloc((size_t)job->call->in * sizeof *row);
    if (!row) job->failed = 1;
    for (long t; row && (t = take(job, 1)) < job->call->tokens;) quantize_token(job, t, row);
    free(row);
}

/* Scale `many` rows from `o` on, of token t, and store them; `sums` has one of four for each. */
static void store(const struct job *job, long o, long many, long t, const int32_t *sums) {
    const struct linear *call = job->call;
    const int32_t sum = job->sums[t];
    const float scale = job->scales[t];
    float *y = (float *)call->y + t * call->out;
    uint16_t *y16 = (uint16_t *)call->y + t * call->out;
    for (long p = 0; p < many; p++) {
        float value = (float)(sums[4 * p] - sum) * (call->gamma[o + p] / scale);
        if (call->dtype == BFLOAT16) {
            if (call->bias) value += bf16_to_float(((const uint16_t *)call->bias)[o + p]);
            y16[o + p] = float_to_bf16(value);
        } else {
            if (call->bias) value += ((const float *)call->bias)[o + p];
            y[o + p] = value;
        }
    }
}

/* Store packed rows [begin, end) of `tokens` tokens from t on; sums is [tokens][ROW_BLOCK][4]. */
static void store_block(const struct job *job, long begin, long end, long t, long tokens,
                        int32_t (*sums)[ROW_BLOCK][4]) {
    for (long k = 0; k < tokens; k++)
        for (long i = 0; i < 4; i++) {
            const long o = begin + i * job->quarter, left = job->call->out - o;
            store(job, o, left < end - begin ? left : end - begin, t + k, &sums[k][0][i]);
        }
}

/* Packed rows [begin, end) times a few tokens: straight from the packed bytes. */
static void multiply_packed(const struct job *job, long begin, long end, long t, long tokens) {
    const struct linear *call = job->call;
    int32_t sums[MOST_TOKENS][ROW_BLOCK][4], some[MOST_TOKENS][4];
    for (long p = begin; p < end; p++) {
        call->path->dot(call->packed + p * call->in, call->in, job->q + t * job->stride,
                        job->stride, tokens, some[0]);
        for (long k = 0; k < tokens; k++) memcpy(sums[k][p - begin], some[k], sizeof *some);
    }
    store_block(job, begin, end, t, tokens, sums);
}

/* Packed rows [begin, end) times up to TOKEN_BLOCK tokens, tile by tile. */
static void multiply_tiles(const struct job *job, long begin, long end, long t, long tokens) {
    const struct linear *call = job->call;
    uint8_t tile[4 * TILE_COLUMNS];
    int32_t sums[ROW_BLOCK][TOKEN_BLOCK][4] = {0}, turned[TOKEN_BLOCK][ROW_BLOCK][4];
    for (long c = 0; c < call->in; c += TILE_COLUMNS) {
        const long columns = call->in - c < TILE_COLUMNS ? call->in - c : TILE_COLUMNS;
        for (long p = begin; p < end; p++) {
            call->path->unpack(call->packed + p * call->in + c, columns, tile);
            call->path->multiply(tile, columns, job->q + t * job->stride + c, job->stride, tokens,
                                 sums[p - begin][0]);
        }
    }
    for (long k = 0; k < tokens; k++)
        for (long p = 0; p < end - begin; p++) memcpy(turned[k][p], sums[p][k], sizeof sums[p][k]);
    store_block(job, begin, end, t, tokens, turned);
}

/* Take blocks of packed rows until none is left. While a block is in the cache, every token is
 * multiplied with it: a matrix is read from memory once, whatever the number of tokens. */
static void multiply(void *data) {
    struct job *job = data;
    const struct path *path = job->call->path;
    const long tokens = job->call->tokens, tiled = path->multiply && tokens >= TILED_FROM;
    const long width = tiled ? TOKEN_BLOCK : path->tokens;
    for (long begin; (begin = take(job, ROW_BLOCK)) < job->quarter;) {
        const long end = begin + ROW_BLOCK < job->quarter ? begin + ROW_BLOCK : job->quarter;
        for (long t = 0; t < tokens; t += width)
            (tiled ? multiply_tiles : multiply_packed)(
                job, begin, end, t, tokens - t < width ? tokens - t : width);
    }
}

static void run(struct job *job, void (*body)(void *), int serial) {
    job->next = 0;
    if (serial || !job->call->parallel || job->call->threads < 2)
        body(job);
    else
        job->call->parallel(body, job, (unsigned)job->call->threads, 0);
}

static const struct path *const paths[] = {
#if defined(__x86_64__)
    &trivium_path_avx512,
    &trivium_path_avx2,
#endif
#if defined(__aarch64__) || defined(TRIVIUM_EMULATE)
    &trivium_path_neon,
#endif
    &trivium_path_portable,
};

/* Path `index`, best first, if this machine supports it; NULL otherwise. Sets its name, which
 * is NULL beyond the last. */
EXPORT const struct path *trivium_path(int index, const char **name) {
    *name = NULL;
    if (index < 0 || index >= (int)(sizeof paths / sizeof *paths)) return NULL;
    *name = paths[index]->name;
    return paths[index]->supported() ? paths[index] : NULL;
}

/* Compute one layer. Returns 0, or 1 if memory ran out (y is then undefined). */
EXPORT int trivium_linear(const struct linear *call) {
    struct job job = {.call = call,
                      .stride = (call->in + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT,
                      .quarter = (call->out + 3) / 4};
    const size_t tokens = (size_t)call->tokens;
    if (!tokens) return 0;
    job.q = aligned_alloc(ALIGNMENT, tokens * (size_t)job.stride);
    job.scales = malloc(tokens * sizeof *job.scales);
    job.sums = malloc(tokens * sizeof *job.sums);
    if (job.q && job.scales && job.sums) {
        const int serial = call->tokens * call->in * call->out < SERIAL_BELOW;
        run(&job, quantize_tokens, call->tokens * call->in < SERIAL_BELOW / 4);
        if (!job.failed) run(&job, multiply, serial);
    } else {
        job.failed = 1;
    }
    free(job.q);
    free(job.scales);
    free(job.sums);
    return job.failed;
}
