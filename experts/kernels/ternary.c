/* y = (W_q · x_q) · γ / s (+ bias): BitNet b1.58 (W1.58A8) on packed weights, for any CPU.
 *
 * Plain C behind a small C interface: `trivium_path` says what this machine can run,
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
    TILED_FROM = 16,       /* tokens that are worth unpacking weights for */
    TOKEN_BLOCK = 64,      /* tokens that a tile is used for; their columns stay in the cache */
    SERIAL_BELOW = 1 << 18 /* products that are not worth waking other threads for */
};

enum dtype { FLOAT32 = 0, BFLOAT16 = 1 };

/* GOMP_parallel's signature: run `body(data)` on `threads` threads and wait for all. */
typedef void (*parallel_for)(void (*body)(void *), void *data, unsigned threads, unsigned flags);

/* One call, as the caller describes it. Matrices are contiguous, row by row.
 *
 * A bank has the matrices of several experts in slots, each wherever it lies. Tokens come in
 * groups: tokens order[begin[g]] to order[begin[g + 1] - 1] of x are multiplied with slot[g]. */
struct linear {
    const struct path *path;
    const void *x;                /* [tokens, in], dtype */
    const uint8_t *const *packed; /* [slots], each [ceil(out / 4), in]; NULL: zeros come out */
    const float *const *gamma;    /* [slots], each [out] */
    const void *const *bias;      /* [slots], each [out], dtype, or NULL */
    void *y;                      /* [tokens, out], dtype; only tokens of a group are written */
    int64_t tokens, in, out;
    int64_t dtype, threads;
    parallel_for parallel; /* NULL: one thread */
    const int64_t *order;  /* [tokens]; NULL: as they come */
    const int64_t *begin;  /* [groups + 1] */
    const int64_t *slot;   /* [groups] */
    int64_t groups;
};

/* A call under way. Token k of it is the k-th in `order`. */
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

/* Where token k of the job stands in x and y. */
static long place(const struct linear *call, long k) { return call->order ? call->order[k] : k; }

static void quantize_token(struct job *job, long k, float *row) {
    const struct linear *call = job->call;
    const long t = place(call, k);
    const float *x = (const float *)call->x + t * call->in;
    if (call->dtype == BFLOAT16) {
        const uint16_t *from = (const uint16_t *)call->x + t * call->in;
        for (long i = 0; i < call->in; i++) row[i] = bf16_to_float(from[i]);
        x = row;
    }
    int8_t *q = job->q + k * job->stride;
    call->path->quantize(x, call->in, q, job->scales + k, job->sums + k);
    memset(q + call->in, 0, (size_t)(job->stride - call->in));
}

static void quantize_tokens(void *data) {
    struct job *job = data;
    float *row = malloc((size_t)job->call->in * sizeof *row);
    if (!row) job->failed = 1;
    const long tokens = job->call->begin[job->call->groups];
    for (long k; row && (k = take(job, 1)) < tokens;) quantize_token(job, k, row);
    free(row);
}

/* Packed rows [begin, end) of the matrix in a slot. */
struct rows {
    long slot, begin, end;
};

/* Scale `many` rows from `o` on, of token k, and store them; `sums` has one of four for each. */
static void store(const struct job *job, long slot, long o, long many, long k,
                  const int32_t *sums) {
    const struct linear *call = job->call;
    const int32_t sum = job->sums[k];
    const float scale = job->scales[k], *gamma = call->gamma[slot] + o;
    const void *bias = call->bias[slot];
    const long at = place(call, k) * call->out + o;
    for (long p = 0; p < many; p++) {
        float value = (float)(sums[4 * p] - sum) * (gamma[p] / scale);
        if (call->dtype == BFLOAT16) {
            if (bias) value += bf16_to_float(((const uint16_t *)bias)[o + p]);
            ((uint16_t *)call->y)[at + p] = float_to_bf16(value);
        } else {
            if (bias) value += ((const float *)bias)[o + p];
            ((float *)call->y)[at + p] = value;
        }
    }
}

/* Store some rows of `tokens` tokens from k on; sums is [tokens][ROW_BLOCK][4]. */
static void store_block(const struct job *job, struct rows rows, long k, long tokens,
                        int32_t (*sums)[ROW_BLOCK][4]) {
    const long many = rows.end - rows.begin;
    for (long n = 0; n < tokens; n++)
        for (long i = 0; i < 4; i++) {
            const long o = rows.begin + i * job->quarter, left = job->call->out - o;
            store(job, rows.slot, o, left < many ? left : many, k + n, &sums[n][0][i]);
        }
}

/* Row p of the packed matrix in a slot. */
static const uint8_t *packed_row(const struct job *job, struct rows rows, long p) {
    return job->call->packed[rows.slot] + p * job->call->in;
}

/* Some rows times a few tokens from k on: straight from the packed bytes. */
static void multiply_packed(const struct job *job, struct rows rows, long k, long tokens) {
    const struct linear *call = job->call;
    int32_t sums[MOST_TOKENS][ROW_BLOCK][4], some[MOST_TOKENS][4];
    for (long p = rows.begin; p < rows.end; p++) {
        call->path->dot(packed_row(job, rows, p), call->in, job->q + k * job->stride, job->stride,
                        tokens, some[0]);
        for (long n = 0; n < tokens; n++) memcpy(sums[n][p - rows.begin], some[n], sizeof *some);
    }
    store_block(job, rows, k, tokens, sums);
}

/* Some rows times up to TOKEN_BLOCK tokens from k on, tile by tile. */
static void multiply_tiles(const struct job *job, struct rows rows, long k, long tokens) {
    const struct linear *call = job->call;
    uint8_t tile[4 * TILE_COLUMNS];
    int32_t sums[ROW_BLOCK][TOKEN_BLOCK][4] = {0}, turned[TOKEN_BLOCK][ROW_BLOCK][4];
    for (long c = 0; c < call->in; c += TILE_COLUMNS) {
        const long columns = call->in - c < TILE_COLUMNS ? call->in - c : TILE_COLUMNS;
        for (long p = rows.begin; p < rows.end; p++) {
            call->path->unpack(packed_row(job, rows, p) + c, columns, tile);
            call->path->multiply(tile, columns, job->q + k * job->stride + c, job->stride, tokens,
                                 sums[p - rows.begin][0]);
        }
    }
    for (long n = 0; n < tokens; n++)
        for (long p = 0; p < rows.end - rows.begin; p++)
            memcpy(turned[n][p], sums[p][n], sizeof sums[p][n]);
    store_block(job, rows, k, tokens, turned);
}

/* Some rows times all tokens of a group. While they are in the cache, every token is multiplied
 * with them: a matrix is read from memory once, whatever the number of tokens. */
static void multiply_rows(const struct job *job, struct rows rows, long k, long end) {
    const struct path *path = job->call->path;
    const int tiled = path->multiply && end - k >= TILED_FROM;
    const long width = tiled ? TOKEN_BLOCK : path->tokens;
    for (; k < end; k += width) {
        const long tokens = end - k < width ? end - k : width;
        if (tiled)
            multiply_tiles(job, rows, k, tokens);
        else
            multiply_packed(job, rows, k, tokens);
    }
}

/* Zeros for the tokens of a group whose slot is empty. */
static void clear_rows(const struct linear *call, long k, long end) {
    const size_t size = (size_t)call->out * (call->dtype == BFLOAT16 ? 2 : 4);
    for (; k < end; k++) memset((char *)call->y + (size_t)place(call, k) * size, 0, size);
}

/* Take blocks of packed rows, group by group, until none is left. */
static void multiply(void *data) {
    struct job *job = data;
    const struct linear *call = job->call;
    const long blocks = (job->quarter + ROW_BLOCK - 1) / ROW_BLOCK;
    for (long piece; (piece = take(job, 1)) < call->groups * blocks;) {
        const long g = piece / blocks, begin = piece % blocks * ROW_BLOCK;
        const long end = begin + ROW_BLOCK < job->quarter ? begin + ROW_BLOCK : job->quarter;
        const struct rows rows = {call->slot[g], begin, end};
        if (call->packed[rows.slot])
            multiply_rows(job, rows, call->begin[g], call->begin[g + 1]);
        else if (!begin)
            clear_rows(call, call->begin[g], call->begin[g + 1]);
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

/* Compute one layer, of one expert or of several. Returns 0, or 1 if memory ran out (y is then
 * undefined). */
EXPORT int trivium_linear(const struct linear *call) {
    struct job job = {.call = call,
                      .stride = (call->in + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT,
                      .quarter = (call->out + 3) / 4};
    const size_t tokens = (size_t)call->begin[call->groups];
    if (!tokens) return 0;
    job.q = aligned_alloc(ALIGNMENT, tokens * (size_t)job.stride);
    job.scales = malloc(tokens * sizeof *job.scales);
    job.sums = malloc(tokens * sizeof *job.sums);
    if (job.q && job.scales && job.sums) {
        const long numbers = (long)tokens * call->in;
        run(&job, quantize_tokens, numbers < SERIAL_BELOW / 4);
        if (!job.failed) run(&job, multiply, numbers * call->out < SERIAL_BELOW);
    } else {
        job.failed = 1;
    }
    free(job.q);
    free(job.scales);
    free(job.sums);
    return job.failed;
}
