/* Sums over the rows of bundles, which derivatives in everything that rows share are made of. */
#pragma once
#include "bundle_products.h"

#if defined(__clang__) || __GNUC__ >= 12
#define CHOSEN(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CHOSEN(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif

/* Neighbours of two vectors added up: those of the first, then those of the second. */
static inline vec neighbours(vec a, vec b) {
#if VECTOR_BYTES == 64 && !defined(CERTTRAIN_DOUBLE)
    return CHOSEN(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
           CHOSEN(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif VECTOR_BYTES == 64 || (VECTOR_BYTES == 32 && !defined(CERTTRAIN_DOUBLE))
    return CHOSEN(a, b, 0, 2, 4, 6, 8, 10, 12, 14) + CHOSEN(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#elif VECTOR_BYTES == 32 || (VECTOR_BYTES == 16 && !defined(CERTTRAIN_DOUBLE))
    return CHOSEN(a, b, 0, 2, 4, 6) + CHOSEN(a, b, 1, 3, 5, 7);
#else
    return CHOSEN(a, b, 0, 2) + CHOSEN(a, b, 1, 3);
#endif
}

/* Sums over lanes that are to be added somewhere, until there are as many as lanes. */
typedef struct {
    vec sum[VECTOR_BYTES / sizeof(real)];
    real *to[VECTOR_BYTES / sizeof(real)];
    int64_t count;
} Totals;

static void add_totals(Totals *t) {
    for (int64_t i = t->count; i < LANES; i++) t->sum[i] = (vec){0};
    for (int64_t n = LANES; n > 1; n /= 2)
        for (int64_t i = 0; i < n / 2; i++) t->sum[i] = neighbours(t->sum[2 * i], t->sum[2 * i + 1]);
    for (int64_t i = 0; i < t->count; i++) *t->to[i] += t->sum[0][i];
    t->count = 0;
}

static inline void add_total(Totals *t, vec v, real *to) {
    t->sum[t->count] = v, t->to[t->count++] = to;
    if (t->count == LANES) add_totals(t);
}

/* by[k][to[i]] += sum over rows of x[k][row] * d[i][row], vectors of x and single numbers of d. */
static inline __attribute__((always_inline)) void outer_tile(const int places, const int count, int64_t rows,
                                                             int64_t row_step, const real *const *x, real *const *by,
                                                             const real *const *d, const int64_t *to) {
    vec sum[4][4];
#pragma GCC unroll 4
    for (int k = 0; k < places; k++)
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) sum[k][i] = *(const vec *)(by[k] + to[i]);
    for (int64_t row = 0; row < rows; row++)
#pragma GCC unroll 4
        for (int k = 0; k < places; k++) {
            const vec v = *(const vec *)(x[k] + row * row_step);
#pragma GCC unroll 4
            for (int i = 0; i < count; i++) sum[k][i] += v * d[i][row];
        }
#pragma GCC unroll 4
    for (int k = 0; k < places; k++)
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) *(vec *)(by[k] + to[i]) = sum[k][i];
}

#define OUTER_OF(n, m)                                              \
    case 4 * n + m: outer_tile(n, m, rows, row_step, x, by, d, to); break;

/* The same for every vector of several places: `wide` of them follow each other in x[place] and in by[place]. */
static void outer(int64_t rows, int64_t row_step, int64_t places, int64_t wide, const real *const *first,
                  real *const *first_by, int64_t by_step, Listed channels, const vec *all) {
    const real *d[4], *x[4];
    real *by[4];
    int64_t to[4];
    for (int64_t i = 0; i < channels.count; i += 4) {
        const int64_t some = least(4, channels.count - i);
        for (int64_t j = 0; j < some; j++) {
            const int64_t own = channel(channels, i + j);
            d[j] = (const real *)(all + own), to[j] = own * by_step;
        }
        for (int64_t k = 0; k < places * wide; k += 4) {
            const int64_t together = least(4, places * wide - k);
            for (int64_t j = 0; j < together; j++) {
                const int64_t place = (k + j) / wide, offset = (k + j) % wide * LANES;
                x[j] = first[place] + offset, by[j] = first_by[place] + offset;
            }
            switch (4 * together + some) {
                OUTER_OF(1, 1) OUTER_OF(1, 2) OUTER_OF(1, 3) OUTER_OF(1, 4) OUTER_OF(2, 1) OUTER_OF(2, 2)
                OUTER_OF(2, 3) OUTER_OF(2, 4) OUTER_OF(3, 1) OUTER_OF(3, 2) OUTER_OF(3, 3) OUTER_OF(3, 4)
                OUTER_OF(4, 1) OUTER_OF(4, 2) OUTER_OF(4, 3) OUTER_OF(4, 4)
            }
        }
    }
}

/* A bundle as [pixel][row][channels, padded]: for sums over rows, what they share belongs in the lanes. */
static void turn(const vec *in, const Passed *passed, int64_t pixels, int64_t c, int64_t rows, real *out) {
    const int64_t padded = vectors(c) * LANES;
    memset(out, 0, sizeof(real) * pixels * rows * padded);
    for (int64_t pixel = 0; pixel < pixels; pixel++, in += c, out += rows * padded) {
        const Listed some = passing(passed, pixel, c);
        for (int64_t k = 0; k < some.count; k++) {
            const int64_t i = channel(some, k);
            for (int64_t row = 0; row < rows; row++) out[row * padded + i] = in[i][row];
        }
    }
}

/* The same for the channels of one pixel that are not left out, [channel][by_step]. */
static void outer_of_pixel(const Passed *reached, int64_t pixel, int64_t c, const vec *d, int64_t rows, int64_t row_step,
                           int64_t places, int64_t wide, const real *const *x, real *const *by, int64_t by_step) {
    outer(rows, row_step, places, wide, x, by, by_step, passing(reached, pixel, c), d + pixel * c);
}
