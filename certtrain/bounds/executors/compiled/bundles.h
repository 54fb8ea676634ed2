/* The steps of back-substitution for a bundle: as many rows of one image and position as a vector has numbers, one in each
 * lane.
 *
 * All of them have the same rectangle, [h][w][channels][lane]; channels are not padded, and no halo is needed. What the
 * rows share, which is everything but their coefficients, is read as single numbers that fill a vector.
 */
#pragma once
#include <string.h>

#include "geometry.h"

#define SUMS (2 * TILE) /* vectors that fit into the registers, with room for what they are made of */

/* What a product reads of one pixel: vectors [depth], and the line of weights for each. */
typedef struct {
    const vec *in;
    const real *weight;
    const int32_t *which; /* those of the vectors to read; NULL where all `depth` are */
    int64_t depth;
} Tap;

/* What a ReLU behind the last product lets through: of each pixel so many channels, and which. */
typedef struct {
    int32_t *count; /* [h][w] */
    int32_t *which; /* [h][w][channels] */
    int known;      /* whether that is listed; without, all are read */
} Passed;

static inline Tap tap(const Passed *passed, int64_t pixel, const vec *in, int64_t depth, const real *weight) {
    const vec *own = in + pixel * depth;
    if (!passed->known || passed->count[pixel] == depth) return (Tap){own, weight, NULL, depth};
    return (Tap){own, weight, passed->which + pixel * depth, passed->count[pixel]};
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
        if (listed && tap->which)
            for (int64_t d = 0; d < tap->depth; d++)
                add_product(count, x[tap->which[d]], w + tap->which[d] * step, sum);
        else
            for (int64_t d = 0; d < tap->depth; d++, w += step) add_product(count, x[d], w, sum);
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
    for (int64_t t = 0; t < taps; t++) listed |= tap[t].which != NULL;
    if (listed) listed_sums(count, taps, tap, step, from, out, to);
    else plain_sums(count, taps, tap, step, from, out, to);
}

/* How many of `count` sums to take at a time: even shares, since few sums would wait for themselves. */
static inline int64_t at_once(int64_t count) {
    const int64_t parts = most(1, (count + SUMS - 1) / SUMS);
    return most(1, (count + parts - 1) / parts);
}

/* Each pixel after a transposed convolution is a sum over the taps that reach it. */
static Region bundle_convolve(const Step *s, int64_t member, Region r, const vec *in, int64_t depth,
                              const Passed *passed, vec *out) {
    const int64_t c = s->channels, kh = s->kernel[0], kw = s->kernel[1], sh = s->stride[0], sw = s->stride[1];
    const int64_t share = at_once(c);
    const Region n = widened(s, r);
    const real *weights = at(&s->operand[0], member, 0);
    Tap tapped[kh * kw];
    for (int64_t i = 0; i < n.h; i++)
        for (int64_t j = 0; j < n.w; j++, out += c) {
            const int64_t py = n.y + i + s->padding[0], px = n.x + j + s->padding[1];
            int64_t taps = 0;
            for (int64_t ky = py % sh; ky < kh; ky += sh) {
                const int64_t y = floor_div(py - ky, sh) - r.y;
                if (y < 0 || y >= r.h) continue;
                for (int64_t kx = px % sw; kx < kw; kx += sw) {
                    const int64_t column = floor_div(px - kx, sw) - r.x;
                    if (column < 0 || column >= r.w) continue;
                    const real *w = weights + (ky * kw + kx) * depth * c;
                    tapped[taps++] = tap(passed, y * r.w + column, in, depth, w);
                }
            }
            for (int64_t k = 0; k < c; k += share) any_sums(least(share, c - k), taps, tapped, c, k, out + k, NULL);
        }
    return n;
}

/* The same onto few channels: each pixel before is spread over its window, [depth][kernel]. */
static Region bundle_convolve_thin(const Step *s, int64_t member, Region r, const vec *in, int64_t depth,
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
            if (!own.depth) continue;
            const int64_t left = (r.x + j) * s->stride[1] - s->padding[1] - n.x;
            const int64_t first = most(0, -left) * c, end = least(kw, n.w - left) * c;
            vec *corner = out + (top * n.w + left) * c;
            /* Whole lines follow each other; at the border each is taken by itself. */
            const int64_t lines = end - first == line ? most(0, end_y - first_y) : 1;
            for (int64_t ky = first_y; ky < end_y; ky += lines) {
                const int64_t from = ky * line + first, count = (lines - 1) * line + end - first, share = at_once(count);
                for (int64_t k = from; k < from + count; k += share)
                    any_sums(least(share, from + count - k), 1, &own, kh * line, k, corner, to + k);
            }
        }
    }
    return n;
}

static Region bundle_multiply(const Step *s, int64_t member, const vec *in, int64_t depth, const Passed *passed,
                              vec *out) {
    const int64_t size = s->height * s->width * s->channels, share = at_once(size);
    const Tap all = tap(passed, 0, in, depth, at(&s->operand[0], member, 0));
    for (int64_t k = 0; k < size; k += share) any_sums(least(share, size - k), 1, &all, size, k, out + k, NULL);
    return (Region){0, 0, s->height, s->width};
}

/* Lists are not made where a smaller share than one of so many is blocked. */
enum { FEW_BLOCKED = 4 };

/* So many sums at a time, each of every so-manieth number: a single one would wait for itself. */
enum { PARTS = 4 };

/* What a step adds to the constant of each lane's row: sums of a step in `real`, those of several in double. */
static inline void add_parts(const vec *sum, double *added) {
    const vec all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (int64_t k = 0; k < LANES; k++) added[k] += all[k];
}

static inline vec relaxed(vec *x, real slope, real gap, real intercept, vec sum) {
    const vec zero = {0}, v = *x, negative = (vec)((ivec)v & (v < zero));
    *x = v * slope + negative * gap;
    return sum + negative * intercept;
}

/* Numbers of a rectangle that are zero in both lines, [h] of `length`, each `pitch` behind the one before. */
static int64_t zeros(const real *slope, const real *gap, int64_t h, int64_t length, int64_t pitch) {
    const vec none = {0};
    ivec found = {0};
    int64_t sum = 0;
    for (int64_t y = 0; y < h; y++, slope += pitch, gap += pitch) {
        int64_t i = 0;
        for (; i + LANES <= length; i += LANES)
            found -= (*(const vec *)(slope + i) == none) & (*(const vec *)(gap + i) == none);
        for (; i < length; i++) sum += (slope[i] == 0) & (gap[i] == 0);
    }
    for (int64_t k = 0; k < LANES; k++) sum += found[k];
    return sum;
}

/* Which channels of each pixel pass a ReLU. Where few do not, leaving them out costs more than reading them. */
static void note(Passed *passed, const Step *s, Region r, const real *slope, const real *gap) {
    const int64_t c = s->channels, pitch = s->width * c;
    passed->known = FEW_BLOCKED * zeros(slope, gap, r.h, r.w * c, pitch) >= r.h * r.w * c;
    for (int64_t y = 0; passed->known && y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++) {
            const int64_t pixel = y * r.w + x, from = y * pitch + x * c;
            int32_t *which = passed->which + pixel * c, count = 0;
            for (int32_t i = 0; i < c; i++) {
                which[count] = i;
                count += (slope[from + i] != 0) | (gap[from + i] != 0);
            }
            passed->count[pixel] = count;
        }
}

/* Coefficients that are not finite make the bounds NaN, even if a product never reads them because the ReLU blocks them.
 * They come from parameters that are not finite. Only the first ReLU that rows meet needs this: in the layers before it
 * such parameters have made bounds NaN, which shows in the intercepts, which are always read, or, where a relaxation's
 * lines have none (hbox.py), in what it adds to the rows. */
static void check(const vec *x, int64_t count, double *added) {
    const vec zero = {0};
    ivec found = {0};
    for (int64_t i = 0; i < count; i++) found |= (ivec)(x[i] * zero);
    for (int64_t k = 0; k < LANES; k++) added[k] += ((vec)found)[k];
}

static void bundle_follow_lines(const Step *s, int64_t member, int64_t image, Region r, vec *x, Passed *passed,
                        double *added) {
    vec sum[PARTS] = {{0}};
    const int64_t length = r.w * s->channels, corner = (r.y * s->width + r.x) * s->channels;
    note(passed, s, r, at(&s->operand[0], member, image) + corner, at(&s->operand[1], member, image) + corner);
    for (int64_t y = 0; y < r.h; y++, x += length) {
        const int64_t offset = corner + y * s->width * s->channels;
        const real *slope = at(&s->operand[0], member, image) + offset;
        const real *gap = at(&s->operand[1], member, image) + offset;
        const real *intercept = at(&s->operand[2], member, image) + offset;
        int64_t i = 0;
        for (; i + PARTS <= length; i += PARTS)
#pragma GCC unroll 4
            for (int k = 0; k < PARTS; k++) sum[k] = relaxed(x + i + k, slope[i + k], gap[i + k], intercept[i + k], sum[k]);
#pragma GCC unroll 3
        for (int k = 0; k < PARTS - 1; k++)
            if (i + k < length) sum[k] = relaxed(x + i + k, slope[i + k], gap[i + k], intercept[i + k], sum[k]);
    }
    add_parts(sum, added);
}

/* Adds x[i] a[i]. */
static inline void add_value(const vec *x, const real *a, int64_t length, vec *sum) {
    int64_t i = 0;
    for (; i + PARTS <= length; i += PARTS)
#pragma GCC unroll 4
        for (int k = 0; k < PARTS; k++) sum[k] += x[i + k] * a[i + k];
#pragma GCC unroll 3
    for (int k = 0; k < PARTS - 1; k++)
        if (i + k < length) sum[k] += x[i + k] * a[i + k];
}

static void bundle_value(const Step *s, int64_t member, int64_t image, Region r, const vec *x, double *added) {
    vec sum[PARTS] = {{0}};
    const int64_t length = r.w * s->channels;
    const real *point = at(&s->operand[0], member, image);
    for (int64_t y = 0; y < r.h; y++, x += length)
        add_value(x, point + ((r.y + y) * s->width + r.x) * s->channels, length, sum);
    add_parts(sum, added);
}

static void bundle_spread(const Step *s, int64_t member, int64_t image, Region r, const vec *x, double *added) {
    vec sum[PARTS] = {{0}};
    const int64_t length = r.w * s->channels;
    for (int64_t y = 0; y < r.h; y++, x += length) {
        const real *radius = at(&s->operand[0], member, image) + ((r.y + y) * s->width + r.x) * s->channels;
        int64_t i = 0;
        for (; i + PARTS <= length; i += PARTS)
#pragma GCC unroll 4
            for (int k = 0; k < PARTS; k++) sum[k] -= absolute(x[i + k]) * radius[i + k];
#pragma GCC unroll 3
        for (int k = 0; k < PARTS - 1; k++)
            if (i + k < length) sum[k] -= absolute(x[i + k]) * radius[i + k];
    }
    add_parts(sum, added);
}

/* Adds x[i] a[i] where x is positive. */
static void bundle_positive(const Step *s, int64_t member, int64_t image, Region r, const vec *x, double *added) {
    vec sum[PARTS] = {{0}};
    const int64_t length = r.w * s->channels;
    for (int64_t y = 0; y < r.h; y++, x += length) {
        const real *a = at(&s->operand[0], member, image) + ((r.y + y) * s->width + r.x) * s->channels;
        for (int64_t i = 0; i < length; i++) sum[i % PARTS] += part(POSITIVE, x[i]) * a[i];
    }
    add_parts(sum, added);
}

static void bundle_shift(const Step *s, int64_t member, int64_t image, Region r, vec *x) {
    const int64_t length = r.w * s->channels;
    for (int64_t y = 0; y < r.h; y++, x += length) {
        const real *a = at(&s->operand[0], member, image) + ((r.y + y) * s->width + r.x) * s->channels;
        for (int64_t i = 0; i < length; i++) x[i] += a[i];
    }
}

static void bundle_offset(const Step *s, int64_t member, Region r, const vec *x, double *added) {
    vec sum[PARTS] = {{0}};
    for (int64_t pixel = 0; pixel < r.h * r.w; pixel++, x += s->channels)
        add_value(x, at(&s->operand[0], member, 0), s->channels, sum);
    add_parts(sum, added);
}

static void bundle_scale(const Step *s, int64_t member, Region r, vec *x) {
    const real *factor = at(&s->operand[0], member, 0);
    for (int64_t pixel = 0; pixel < r.h * r.w; pixel++)
        for (int64_t i = 0; i < s->channels; i++, x++) *x *= factor[i];
}

/* Forms are stored in bundles, [forms / LANES][patch][channels][lane]: those of rows that follow each other are copied.
 * Lanes that are left over hold some other form, and are computed for nothing. */
static Region bundle_load(const Task *t, int64_t member, const int64_t *index, int64_t rows, vec *out) {
    const Region patch = patch_of(t, index[0]), r = first_region(t, patch);
    const int64_t c = t->channels, size = patch.h * patch.w * c, length = r.w * c;
    const real *start = at(&t->start, member, t->image[index[0]]), *from[LANES];
    int together = t->form[index[0]] % LANES == 0;
    for (int64_t k = 0; k < LANES; k++) {
        const int64_t form = t->form[index[least(k, rows - 1)]];
        from[k] = start + form / LANES * LANES * size + form % LANES;
        together &= k >= rows || form == t->form[index[0]] + k;
    }
    for (int64_t y = 0; y < r.h; y++) {
        const int64_t offset = ((r.y - patch.y + y) * patch.w + r.x - patch.x) * c * LANES;
        if (together) memcpy(out, from[0] + offset, sizeof(vec) * length);
        else
            for (int64_t i = 0; i < length; i++)
                for (int64_t k = 0; k < LANES; k++) ((real *)(out + i))[k] = from[k][offset + i * LANES];
        out += length;
    }
    return r;
}

/* Lower bounds of rows that share image and position. */
static void substitute_bundle(const Task *t, int64_t member, const int64_t *index, int64_t rows, real *memory) {
    vec *a = (vec *)memory, *b = a + t->space;
    int32_t *numbers = (int32_t *)(b + t->space);
    Passed passed = {numbers, numbers + t->space, 0};
    int checked = 0;
    double added[LANES] = {0};
    const int64_t image = t->image[index[0]];
    Region r = bundle_load(t, member, index, rows, a);
    int64_t depth = t->padded;
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        switch (s->kind) {
            case CONVOLUTION: r = bundle_convolve(s, member, r, a, depth, &passed, b); break;
            case THIN_CONVOLUTION: r = bundle_convolve_thin(s, member, r, a, depth, &passed, b); break;
            case LINEAR: r = bundle_multiply(s, member, a, depth, &passed, b); break;
            case LINES:
                if (!checked) check(a, r.h * r.w * depth, added);
                checked = 1;
                bundle_follow_lines(s, member, image, r, a, &passed, added);
                break;
            case VALUE: bundle_value(s, member, image, r, a, added); break;
            case POSITIVE: bundle_positive(s, member, image, r, a, added); break;
            case SHIFT:
                bundle_shift(s, member, image, r, a);
                passed.known = 0; /* what was blocked may be something now */
                break;
            case SPREAD: bundle_spread(s, member, image, r, a, added); break;
            case OFFSET: bundle_offset(s, member, r, a, added); break;
            default: bundle_scale(s, member, r, a);
        }
        if (is_product(s)) {
            vec *swap = a;
            a = b, b = swap;
            passed.known = 0;
        }
        depth = s->channels;
    }
    const real *constant = at(&t->constant, member, image);
    for (int64_t k = 0; k < rows; k++)
        t->lower[member * t->rows + index[k]] = (real)(constant[t->form[index[k]]] + added[k]);
}
