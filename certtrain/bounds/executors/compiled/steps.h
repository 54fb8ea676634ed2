/* The steps of back-substitution.
 *
 * A row is held as the rectangle of the layer that it reads, [h][w][channels], clipped to the layer; a form that reads
 * all of a layer is the rectangle that covers it. Channels are padded to whole vectors with zeros. On both sides of
 * every line of pixels lies a halo of zeros, as wide as the next transposed convolution reaches.
 */
#pragma once
#include <string.h>

#include "geometry.h"
#include "products.h"

static void clear_halo(real *line, int64_t pixels, int64_t channels, int64_t halo) {
    if (!halo) return;
    memset(line, 0, sizeof(real) * halo * channels);
    memset(line + (halo + pixels) * channels, 0, sizeof(real) * halo * channels);
}

/* One row through a transposed convolution. Output pixels of one line that are a stride apart read the same taps. */
static Region convolve(const Step *s, int64_t member, Region r, const real *in, int64_t depth, int64_t in_halo, real *out) {
    const int64_t c = s->channels, in_pitch = (r.w + 2 * in_halo) * depth;
    const int64_t kh = s->kernel[0], kw = s->kernel[1], sh = s->stride[0], sw = s->stride[1];
    const Region n = widened(s, r);
    const real *weights = at(&s->operand[0], member, 0), *x[kh * kw], *w[kh * kw];
    for (int64_t i = 0; i < n.h; i++) {
        real *line = out + i * (n.w + 2 * s->halo) * c;
        clear_halo(line, n.w, c, s->halo);
        const int64_t py = n.y + i + s->padding[0];
        for (int64_t phase = 0; phase < least(sw, n.w); phase++) {
            const int64_t px = n.x + phase + s->padding[1], pixels = (n.w - phase + sw - 1) / sw;
            int64_t taps = 0;
            for (int64_t ky = py % sh; ky < kh; ky += sh) {
                const int64_t y = floor_div(py - ky, sh) - r.y;
                if (y < 0 || y >= r.h) continue;
                for (int64_t kx = px % sw; kx < kw; kx += sw, taps++) {
                    x[taps] = in + y * in_pitch + (floor_div(px - kx, sw) - r.x + in_halo) * depth;
                    w[taps] = weights + (ky * kw + kx) * depth * c;
                }
            }
            const Product p = {pixels, depth, depth, 1, c, c, sw * c, 0};
            products(&p, taps, x, w, line + (s->halo + phase) * c);
        }
    }
    return n;
}

/* A copy that may write up to a vector more than asked. */
static void copy_over(real *to, const real *from, int64_t numbers) {
    for (int64_t i = 0; i < numbers; i += LANES) *(vec *)(to + i) = *(const vec *)(from + i);
}

/* The same onto few channels: a matrix [depth][kernel, padded] makes each pixel's window, and windows are added up.
 * Neighbours overlap, and to read what was stored a moment ago takes ten times as long as to add it. So `apart` of them,
 * until the next one overlaps the first no more, are laid into strips of their own, and the strips are added. */
static Region convolve_thin(const Step *s, int64_t member, Region r, const real *in, int64_t depth, int64_t in_halo,
                            real *out) {
    const int64_t c = s->channels, kh = s->kernel[0], line = s->kernel[1] * c, step = s->stride[1] * c;
    const int64_t window = vectors(kh * line) * LANES, pitch = vectors((r.w - 1) * step + line) * LANES;
    const int64_t apart = (line + step - 1) / step, lines = (r.h - 1) * s->stride[0] + kh, strip = kh * pitch + LANES;
    const Region n = widened(s, r);
    if (!r.h || !r.w) {
        memset(out, 0, sizeof(real) * n.h * n.w * c);
        return n;
    }
    real *windows = out + vectors(n.h * n.w * c) * LANES, *whole = windows + r.w * window + LANES;
    real *strips = whole + lines * pitch;
    const real *weights = at(&s->operand[0], member, 0);
    const ivec all = first_of(LANES), rest = first_of((line - 1) % LANES + 1);
    memset(whole, 0, sizeof(real) * (lines * pitch + apart * strip));
    for (int64_t y = 0; y < r.h; y++) {
        const real *x = in + (y * (r.w + 2 * in_halo) + in_halo) * depth;
        const Product p = {r.w, depth, depth, 1, window, window, window, 0};
        products(&p, 1, &x, &weights, windows);
        for (int64_t ky = 0; ky < kh; ky++) {
            for (int64_t j = 0, own = 0; j < r.w; j++, own = own + 1 < apart ? own + 1 : 0)
                for (int64_t k = 0; k < line; k += LANES) {
                    const ivec v = *(const ivec *)(windows + j * window + ky * line + k);
                    /* What this clears behind a window is written later, or never read. */
                    *(ivec *)(strips + own * strip + ky * pitch + j * step + k) = v & (k + LANES < line ? all : rest);
                }
        }
        real *to = whole + y * s->stride[0] * pitch;
        for (int64_t i = 0; i < kh * pitch; i += LANES) {
            vec sum = *(const vec *)(to + i);
            for (int64_t k = 0; k < apart; k++) sum += *(const vec *)(strips + k * strip + i);
            *(vec *)(to + i) = sum;
        }
    }
    const int64_t top = n.y - (r.y * s->stride[0] - s->padding[0]), left = n.x - (r.x * s->stride[1] - s->padding[1]);
    for (int64_t y = 0; y < n.h; y++) copy_over(out + y * n.w * c, whole + (top + y) * pitch + left * c, n.w * c);
    return n;
}

/* All rows of a block through a matrix [depth][height][width][channels]. */
static void multiply(const Step *s, int64_t member, int64_t rows, Region *r, const real *in, int64_t depth, real *out,
                     int64_t space) {
    const int64_t line = s->width * s->channels, pitch = line + 2 * s->halo * s->channels;
    const real *weights = at(&s->operand[0], member, 0);
    for (int64_t y = 0; y < s->height; y++) {
        const real *x = in, *w = weights + y * line;
        const Product p = {rows, space, depth, 1, s->height * line, line, space, 0};
        products(&p, 1, &x, &w, out + y * pitch + s->halo * s->channels);
        for (int64_t k = 0; k < rows; k++) clear_halo(out + k * space + y * pitch, s->width, s->channels, s->halo);
    }
    for (int64_t k = 0; k < rows; k++) r[k] = (Region){0, 0, s->height, s->width};
}

/* The element-wise steps work in place; what they add to the row's constant goes to `added`, a sum for each lane: those of
 * one step in `real`, those of several in double. */
static void follow_lines(const Step *s, int64_t member, int64_t image, Region r, real *row, double *added) {
    const int64_t length = r.w * s->channels, pitch = length + 2 * s->halo * s->channels;
    const vec zero = {0};
    vec sum = {0};
    for (int64_t y = 0; y < r.h; y++) {
        const int64_t offset = ((r.y + y) * s->width + r.x) * s->channels;
        real *x = row + y * pitch + s->halo * s->channels;
        const real *slope = at(&s->operand[0], member, image) + offset;
        const real *gap = at(&s->operand[1], member, image) + offset;
        const real *intercept = at(&s->operand[2], member, image) + offset;
        for (int64_t i = 0; i < length; i += LANES) {
            const vec v = *(vec *)(x + i), negative = (vec)((ivec)v & (v < zero));
            *(vec *)(x + i) = v * *(const vec *)(slope + i) + negative * *(const vec *)(gap + i);
            sum += negative * *(const vec *)(intercept + i);
        }
    }
    add_lanes(sum, added);
}

/* Between two shapes of a coefficient: itself, minus its size, or what is positive of it. */
static inline vec part(int64_t kind, vec v) {
    const vec zero = {0};
    if (kind == SPREAD) return -absolute(v);
    return kind == POSITIVE ? (vec)((ivec)v & ~(v < zero)) : v;
}

/* The form's value at a point, minus how far it moves around one, or the value of its positive coefficients. */
static void point(const Step *s, int64_t member, int64_t image, Region r, const real *row, double *added) {
    const int64_t length = r.w * s->channels, pitch = length + 2 * s->halo * s->channels;
    const ivec all = first_of(LANES), rest = first_of((length - 1) % LANES + 1);
    vec sum = {0};
    for (int64_t y = 0; y < r.h; y++) {
        const real *x = row + y * pitch + s->halo * s->channels;
        const real *p = at(&s->operand[0], member, image) + ((r.y + y) * s->width + r.x) * s->channels;
        for (int64_t i = 0; i < length; i += LANES) {
            const ivec mask = i + LANES < length ? all : rest; /* behind a line there may be anything */
            const vec v = (vec)(*(const ivec *)(x + i) & mask);
            sum += part(s->kind, v) * (vec)(*(const ivec *)(p + i) & mask);
        }
    }
    add_lanes(sum, added);
}

/* Adds a layer to the row. */
static void shift(const Step *s, int64_t member, int64_t image, Region r, real *row) {
    const int64_t length = r.w * s->channels, pitch = length + 2 * s->halo * s->channels;
    for (int64_t y = 0; y < r.h; y++) {
        real *x = row + y * pitch + s->halo * s->channels;
        const real *p = at(&s->operand[0], member, image) + ((r.y + y) * s->width + r.x) * s->channels;
        for (int64_t i = 0; i < length; i += LANES) *(vec *)(x + i) += *(const vec *)(p + i);
    }
}

/* One number per channel: a factor, or what a form's value at the offset adds. */
static void channels(const Step *s, int64_t member, Region r, real *row, double *added) {
    const int64_t c = s->channels, pitch = (r.w + 2 * s->halo) * c;
    const real *a = at(&s->operand[0], member, 0);
    vec sum = {0};
    for (int64_t y = 0; y < r.h; y++)
        for (int64_t j = 0; j < r.w; j++) {
            real *x = row + y * pitch + (s->halo + j) * c;
            for (int64_t i = 0; i < c; i += LANES) {
                const vec v = *(vec *)(x + i), b = *(const vec *)(a + i);
                if (s->kind == SCALE) *(vec *)(x + i) = v * b;
                else sum += v * b;
            }
        }
    add_lanes(sum, added);
}

/* One step of one row; `after` receives the row where the step is a product. */
static Region apply(const Step *s, int64_t member, int64_t image, Region r, real *row, int64_t depth, int64_t halo,
                    real *after, double *added) {
    switch (s->kind) {
        case CONVOLUTION: return convolve(s, member, r, row, depth, halo, after);
        case THIN_CONVOLUTION: return convolve_thin(s, member, r, row, depth, halo, after);
        case LINES: follow_lines(s, member, image, r, row, added); break;
        case SHIFT: shift(s, member, image, r, row); break;
        case VALUE:
        case POSITIVE:
        case SPREAD: point(s, member, image, r, row, added); break;
        default: channels(s, member, r, row, added);
    }
    return r;
}

/* The starting row, cut to the layer. */
static Region load(const Task *t, int64_t member, int64_t row, real *out) {
    const Region patch = patch_of(t, row), r = first_region(t, patch);
    const int64_t pitch = (r.w + 2 * t->halo) * t->padded;
    const real *start = at(&t->start, member, t->image[row]) + t->form[row] * t->patch[0] * t->patch[1] * t->channels;
    for (int64_t y = 0; y < r.h; y++) {
        const real *from = start + ((r.y - patch.y + y) * patch.w + r.x - patch.x) * t->channels;
        real *to = out + y * pitch;
        if (t->padded == t->channels) clear_halo(to, r.w, t->padded, t->halo);
        else memset(to, 0, sizeof(real) * pitch);
        to += t->halo * t->padded;
        if (t->channels % LANES == 0) copy_over(to, from, r.w * t->channels);
        else
            for (int64_t x = 0; x < r.w; x++)
                memcpy(to + x * t->padded, from + x * t->channels, sizeof(real) * t->channels);
    }
    return r;
}
