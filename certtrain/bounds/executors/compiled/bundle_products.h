/* Products of bundles: sums in registers, a vector for each number of a form, one row in each lane. */
#pragma once
#include <string.h>

#include "geometry.h"

#define SUMS (2 * TILE) /* vectors that fit into the registers, with room for what they are made of */
#define PICKED 12 /* fewer, since their places take registers, too */

/* Which numbers of a rectangle may be something else than zero: of each pixel so many channels, and which. */
typedef struct {
    int32_t *count; /* [h][w] */
    int32_t *which; /* [h][w][channels] */
    int known;      /* whether that is listed; without, all may be */
} Passed;

/* A bundle before a step; `passed` says which of its numbers may be something else than zero. */
typedef struct {
    vec *row;
    Region region;
    Passed passed;
} State;

/* Channels of a pixel: those that are listed, or all of them. */
typedef struct {
    const int32_t *which; /* NULL where none is left out */
    int64_t count;
} Listed;

static inline Listed passing(const Passed *passed, int64_t pixel, int64_t channels) {
    if (!passed->known || passed->count[pixel] == channels) return (Listed){NULL, channels};
    return (Listed){passed->which + pixel * channels, passed->count[pixel]};
}

/* The k-th of them. */
static inline int64_t channel(Listed some, int64_t k) { return some.which ? some.which[k] : k; }

/* What a product reads of one pixel: vectors [depth], and the line of weights for each. */
typedef struct {
    const vec *in;
    const real *weight;
    Listed read; /* those of the vectors to read */
} Tap;

static inline Tap tap(const Passed *passed, int64_t pixel, const vec *in, int64_t depth, const real *weight) {
    return (Tap){in + pixel * depth, weight, passing(passed, pixel, depth)};
}

static inline __attribute__((always_inline)) void add_product(const int count, vec v, const real *w, vec *sum) {
#pragma GCC unroll 24
    for (int i = 0; i < count; i++) sum[i] += v * w[i];
}

/* `count` sums over taps and depth d of in[d] * weight[d][from + i]; added to out[to[i]], or stored to out[i] without `to`. */
static inline __attribute__((always_inline)) void sums(const int count, const int listed, int64_t taps, const Tap *tap,
                                                       int64_t step, int64_t from, vec *out, const int64_t *to) {
    vec sum[SUMS];
#pragma GCC unroll 24
    for (int i = 0; i < count; i++) sum[i] = (vec){0};
    for (const Tap *end = tap + taps; tap < end; tap++) {
        const vec *x = tap->in;
        const real *w = tap->weight + from;
        const int32_t *which = tap->read.which;
        if (listed && which)
            for (int64_t d = 0; d < tap->read.count; d++) add_product(count, x[which[d]], w + which[d] * step, sum);
        else
            for (int64_t d = 0; d < tap->read.count; d++, w += step) add_product(count, x[d], w, sum);
    }
    if (to)
#pragma GCC unroll 24
        for (int i = 0; i < count; i++) out[to[i]] += sum[i];
    else
#pragma GCC unroll 24
        for (int i = 0; i < count; i++) out[i] = sum[i];
}

#define SUMS_OF(n)                                                   \
    case n: sums(n, listed, taps, tap, step, from, out, to); break;

static inline __attribute__((always_inline)) void so_many_sums(int64_t count, const int listed, int64_t taps,
                                                               const Tap *tap, int64_t step, int64_t from, vec *out,
                                                               const int64_t *to) {
    switch (count) {
        SUMS_OF(1) SUMS_OF(2) SUMS_OF(3) SUMS_OF(4) SUMS_OF(5) SUMS_OF(6)
        SUMS_OF(7) SUMS_OF(8) SUMS_OF(9) SUMS_OF(10) SUMS_OF(11) SUMS_OF(12)
#if TILE > 6
        SUMS_OF(13) SUMS_OF(14) SUMS_OF(15) SUMS_OF(16) SUMS_OF(17) SUMS_OF(18)
        SUMS_OF(19) SUMS_OF(20) SUMS_OF(21) SUMS_OF(22) SUMS_OF(23) SUMS_OF(24)
#endif
    }
}

static void plain_sums(int64_t count, int64_t taps, const Tap *tap, int64_t step, int64_t from, vec *out,
                       const int64_t *to) {
    so_many_sums(count, 0, taps, tap, step, from, out, to);
}

static void listed_sums(int64_t count, int64_t taps, const Tap *tap, int64_t step, int64_t from, vec *out,
                        const int64_t *to) {
    so_many_sums(count, 1, taps, tap, step, from, out, to);
}

/* The same loops without a look at lists, where there are none: several percent faster. */
static inline void any_sums(int64_t count, int64_t taps, const Tap *tap, int64_t step, int64_t from, vec *out,
                            const int64_t *to) {
    int listed = 0;
    for (int64_t t = 0; t < taps; t++) listed |= tap[t].read.which != NULL;
    if (listed) listed_sums(count, taps, tap, step, from, out, to);
    else plain_sums(count, taps, tap, step, from, out, to);
}

/* How many of `count` sums to take at a time: even shares, since few sums would wait for themselves. */
static inline int64_t at_once(int64_t count, int64_t largest) {
    const int64_t parts = most(1, (count + largest - 1) / largest);
    return most(1, (count + parts - 1) / parts);
}

/* Sums of which only some are wanted: of in[d] * weight[d][pick[i]], stored to out[pick[i]]. Few sums would wait for
 * themselves, so each is made in `parts` that are added in the end. */
static inline __attribute__((always_inline)) void picked(const int count, const int parts, int64_t taps, const Tap *tap,
                                                         int64_t step, const int32_t *pick, vec *out) {
    vec sum[PICKED];
#pragma GCC unroll 24
    for (int i = 0; i < count * parts; i++) sum[i] = (vec){0};
    for (const Tap *end = tap + taps; tap < end; tap++) {
        int64_t d = 0;
        for (; d + parts <= tap->read.count; d += parts)
#pragma GCC unroll 4
            for (int part = 0; part < parts; part++) {
                const int64_t from = channel(tap->read, d + part);
                const vec x = tap->in[from];
                const real *w = tap->weight + from * step;
#pragma GCC unroll 12
                for (int i = 0; i < count; i++) sum[i * parts + part] += x * w[pick[i]];
            }
        for (; d < tap->read.count; d++) {
            const int64_t from = channel(tap->read, d);
            const vec x = tap->in[from];
            const real *w = tap->weight + from * step;
#pragma GCC unroll 12
            for (int i = 0; i < count; i++) sum[i * parts] += x * w[pick[i]];
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < count; i++) {
#pragma GCC unroll 4
        for (int part = 1; part < parts; part++) sum[i * parts] += sum[i * parts + part];
        out[pick[i]] = sum[i * parts];
    }
}

#define PICKED_OF(n, parts)                                        \
    case n: picked(n, parts, taps, tap, step, pick, out); break;

static void some_sums(int64_t count, int64_t taps, const Tap *tap, int64_t step, const int32_t *pick, vec *out) {
    switch (count) {
        PICKED_OF(1, 4) PICKED_OF(2, 4) PICKED_OF(3, 4) PICKED_OF(4, 2) PICKED_OF(5, 2) PICKED_OF(6, 2)
        PICKED_OF(7, 1) PICKED_OF(8, 1) PICKED_OF(9, 1) PICKED_OF(10, 1) PICKED_OF(11, 1) PICKED_OF(12, 1)
    }
}

/* All channels of one pixel, each a sum over the taps: those that are left out are zero. */
static void pixel_sums(const Passed *wanted, int64_t pixel, int64_t channels, int64_t taps, const Tap *tap, int64_t step,
                       vec *out) {
    const Listed some = passing(wanted, pixel, channels);
    if (!some.which) {
        const int64_t share = at_once(channels, SUMS);
        for (int64_t k = 0; k < channels; k += share)
            any_sums(least(share, channels - k), taps, tap, step, k, out + k, NULL);
        return;
    }
    const int64_t share = at_once(some.count, PICKED);
    memset(out, 0, sizeof(vec) * channels);
    for (int64_t k = 0; k < some.count; k += share)
        some_sums(least(share, some.count - k), taps, tap, step, some.which + k, out);
}

/* A pixel before a transposed convolution, and the number of the tap through which another one depends on it. */
typedef struct {
    int64_t tap, pixel;
} Origin;

/* Where a pixel after the convolution comes from, (y, x) of the layer; how many there are. */
static inline int64_t origins(const Step *s, Region r, int64_t y, int64_t x, Origin *origin) {
    const int64_t kh = s->kernel[0], kw = s->kernel[1], sh = s->stride[0], sw = s->stride[1];
    const int64_t py = y + s->padding[0], px = x + s->padding[1];
    int64_t count = 0;
    for (int64_t ky = py % sh; ky < kh; ky += sh) {
        const int64_t row = floor_div(py - ky, sh) - r.y;
        if (row < 0 || row >= r.h) continue;
        for (int64_t kx = px % sw; kx < kw; kx += sw) {
            const int64_t column = floor_div(px - kx, sw) - r.x;
            if (column >= 0 && column < r.w) origin[count++] = (Origin){ky * kw + kx, row * r.w + column};
        }
    }
    return count;
}

/* Each pixel after a transposed convolution is a sum over the taps that reach it. */
static void bundle_convolve(const Step *s, int64_t member, Region r, const vec *in, int64_t depth, const Passed *passed,
                            const Passed *wanted, vec *out) {
    const int64_t c = s->channels, kernel = s->kernel[0] * s->kernel[1];
    const Region n = widened(s, r);
    const real *weights = at(&s->operand[0], member, 0);
    Origin origin[kernel];
    Tap tapped[kernel];
    for (int64_t i = 0, pixel = 0; i < n.h; i++)
        for (int64_t j = 0; j < n.w; j++, pixel++, out += c) {
            const int64_t taps = origins(s, r, n.y + i, n.x + j, origin);
            for (int64_t t = 0; t < taps; t++)
                tapped[t] = tap(passed, origin[t].pixel, in, depth, weights + origin[t].tap * depth * c);
            pixel_sums(wanted, pixel, c, taps, tapped, c, out);
        }
}

/* The same onto few channels: each pixel before is spread over its window, [depth][kernel]. */
static void bundle_convolve_thin(const Step *s, int64_t member, Region r, const vec *in, int64_t depth,
                                 const Passed *passed, vec *out) {
    const int64_t c = s->channels, kh = s->kernel[0], kw = s->kernel[1], line = kw * c;
    const Region n = widened(s, r);
    const real *weights = at(&s->operand[0], member, 0);
    int64_t to[kh * line];
    for (int64_t ky = 0; ky < kh; ky++)
        for (int64_t k = 0; k < line; k++) to[ky * line + k] = ky * n.w * c + k;
    memset(out, 0, sizeof(vec) * n.h * n.w * c);
    for (int64_t y = 0; y < r.h; y++) {
        const int64_t top = (r.y + y) * s->stride[0] - s->padding[0] - n.y;
        const int64_t first_y = most(0, -top), end_y = least(kh, n.h - top);
        for (int64_t j = 0; j < r.w; j++) {
            const Tap own = tap(passed, y * r.w + j, in, depth, weights);
            if (!own.read.count) continue;
            const int64_t left = (r.x + j) * s->stride[1] - s->padding[1] - n.x;
            const int64_t first = most(0, -left) * c, end = least(kw, n.w - left) * c;
            vec *corner = out + (top * n.w + left) * c;
            /* Whole lines follow each other; at the border each is taken by itself. */
            const int64_t lines = end - first == line ? most(0, end_y - first_y) : 1;
            for (int64_t ky = first_y; ky < end_y; ky += lines) {
                const int64_t from = ky * line + first, count = (lines - 1) * line + end - first;
                const int64_t share = at_once(count, SUMS);
                for (int64_t k = from; k < from + count; k += share)
                    any_sums(least(share, from + count - k), 1, &own, kh * line, k, corner, to + k);
            }
        }
    }
}

static void bundle_multiply(const Step *s, int64_t member, const vec *in, int64_t depth, const Passed *passed,
                            const Passed *wanted, vec *out) {
    const int64_t c = s->channels, size = s->height * s->width * c;
    Tap all = tap(passed, 0, in, depth, at(&s->operand[0], member, 0));
    if (!wanted->known) { /* all numbers of the layer in a row */
        const int64_t share = at_once(size, SUMS);
        for (int64_t k = 0; k < size; k += share) any_sums(least(share, size - k), 1, &all, size, k, out + k, NULL);
    } else
        for (int64_t pixel = 0; pixel < s->height * s->width; pixel++, all.weight += c, out += c)
            pixel_sums(wanted, pixel, c, 1, &all, size, out);
}
