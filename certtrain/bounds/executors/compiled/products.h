/* The one loop that takes the time: sums of products, held in registers. */
#pragma once
#include "task.h"

/* `count` sums of `channels` numbers each: out[p][c] = sum over taps t and depth d of in[t][p][d] * weight[t][d][c]. */
typedef struct {
    int64_t count, in_step;    /* from one p to the next */
    int64_t depth, depth_step; /* from one d to the next, in `in` */
    int64_t weight_step;       /* from one d to the next, in `weight` */
    int64_t channels, out_step;
    int64_t adds; /* to what is there, instead of replacing it */
} Product;

/* `count` x `vectors` sums in registers; both are constants where this is inlined. */
static inline __attribute__((always_inline)) void tile(const int count, const int vectors, const Product *s, int64_t taps,
                                                       const real *const *in, const real *const *weight, real *out) {
    const int64_t in_step = s->in_step, depth_step = s->depth_step, weight_step = s->weight_step;
    vec sum[TILE][2];
#pragma GCC unroll 16
    for (int p = 0; p < count; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[p][v] = s->adds ? *(vec *)(out + p * s->out_step + v * LANES) : (vec){0};
    for (int64_t t = 0; t < taps; t++) {
        const real *x = in[t], *w = weight[t];
        for (int64_t d = 0; d < s->depth; d++, x += depth_step, w += weight_step) {
            vec k[2];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) k[v] = *(const vec *)(w + v * LANES);
#pragma GCC unroll 16
            for (int p = 0; p < count; p++) {
                const real c = x[p * in_step];
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++) sum[p][v] += k[v] * c;
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < count; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) *(vec *)(out + p * s->out_step + v * LANES) = sum[p][v];
}

#define CASE(n)                                                  \
    case n:                                                      \
        if (vectors == 2) tile(n, 2, s, taps, in, weight, out);  \
        else tile(n, 1, s, taps, in, weight, out);               \
        break;

static void any_tile(int64_t count, int64_t vectors, const Product *s, int64_t taps, const real *const *in,
                     const real *const *weight, real *out) {
    switch (count) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if TILE > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

static void products(const Product *s, int64_t taps, const real *const *in, const real *const *weight, real *out) {
    /* Tiles of even size: a single sum left over would wait for itself. */
    const int64_t tiles = (s->count + TILE - 1) / TILE, even = tiles ? (s->count + tiles - 1) / tiles : 0;
    const real *x[taps + 1], *w[taps + 1];
    for (int64_t c = 0; c < s->channels; c += 2 * LANES) {
        const int64_t vectors = s->channels - c > LANES ? 2 : 1;
        for (int64_t t = 0; t < taps; t++) w[t] = weight[t] + c;
        for (int64_t p = 0; p < s->count; p += even) {
            for (int64_t t = 0; t < taps; t++) x[t] = in[t] + p * s->in_step;
            any_tile(least(even, s->count - p), vectors, s, taps, x, w, out + p * s->out_step + c);
        }
    }
}
