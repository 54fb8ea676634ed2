/* The steps of back-substitution.
 *
 * A row is held as the rectangle of the layer that it reads, [h][w][channels], clipped to the layer; a form that reads
 * all of a layer is the rectangle that covers it. Channels are padded to whole vectors with zeros. On both sides of
 * every line of pixels lies a halo of zeros, as wide as the next transposed convolution reaches.
 */
#pragma once
#include <string.h>

#include "products.h"

static void clear_halo(real *line, int64_t pixels, int64_t channels, int64_t halo) {
    memset(line, 0, sizeof(real) * halo * channels);
    memset(line + (halo + pixels) * channels, 0, sizeof(real) * halo * channels);
}

/* What a rectangle depends on before a transposed convolution, cut to the layer. */
static Region widened(const Step *s, Region r) {
    Region n;
    n.y = most(0, r.y * s->stride[0] - s->padding[0]), n.x = most(0, r.x * s->stride[1] - s->padding[1]);
    n.h = least(s->height, (r.y + r.h - 1) * s->stride[0] - s->padding[0] + s->kernel[0]) - n.y;
    n.w = least(s->width, (r.x + r.w - 1) * s->stride[1] - s->padding[1] + s->kernel[1]) - n.x;
    n.h = most(n.h, 0), n.w = most(n.w, 0);
    return n;
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

/* The same onto few channels: a matrix [depth][kernel, padded] makes each pixel's window, and windows are added up. */
static Region convolve_thin(const Step *s, int64_t member, Region r, const real *in, int64_t depth, int64_t in_halo,
                            real *out) {
    const int64_t c = s->channels, kh = s->kernel[0], kw = s->kernel[1], line = kw * c;
    const int64_t window = (kh * line + LANES - 1) / LANES * LANES;
    const int64_t pitch = ((r.w - 1) * s->stride[1] + kw) * c, lines = (r.h - 1) * s->stride[0] + kh;
    const Region n = widened(s, r);
    if (!r.h || !r.w) {
        memset(out, 0, sizeof(real) * n.h * n.w * c);
        return n;
    }
    real *windows = out + n.h * n.w * c, *whole = windows + r.w * window + LANES;
    const real *weights = at(&s->operand[0], member, 0);
    bits in_line[LANES];
    memset(whole, 0, sizeof(real) * (lines * pitch + LANES));
    for (int64_t y = 0; y < r.h; y++) {
        const real *x = in + (y * (r.w + 2 * in_halo) + in_halo) * depth;
        const Product p = {r.w, depth, depth, 1, window, window, window, 0};
        products(&p, 1, &x, &weights, windows);
        for (int64_t k = 0; k < line; k += LANES) {
            for (int64_t i = 0; i < LANES; i++) in_line[i] = k + i < line ? -1 : 0;
            const ivec mask = *(const ivec *)in_line;
            for (int64_t j = 0; j < r.w; j++)
                for (int64_t ky = 0; ky < kh; ky++) {
                    real *o = whole + (y * s->stride[0] + ky) * pitch + j * s->stride[1] * c + k;
                    const vec v = *(const vec *)(windows + j * window + ky * line + k);
                    *(vec *)o += (vec)((ivec)v & mask);
                }
        }
    }
    const int64_t top = n.y - (r.y * s->stride[0] - s->padding[0]), left = n.x - (r.x * s->stride[1] - s->padding[1]);
    for (int64_t y = 0; y < n.h; y++)
        memcpy(out + y * n.w * c, whole + (top + y) * pitch + left * c, sizeof(real) * n.w * c);
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

/* Element by element, in place; returns what is added to the row's constant. */
static double elementwise(const Step *s, int64_t member, int64_t image, Region r, real *row) {
    vec sum = {0};
    const vec zero = {0};
    const int64_t length = r.w * s->channels, pitch = length + 2 * s->halo * s->channels;
    double rest = 0;
    for (int64_t y = 0; y < r.h; y++) {
        const int64_t offset = ((r.y + y) * s->width + r.x) * s->channels;
        real *x = row + y * pitch + s->halo * s->channels;
        const real *a = at(&s->operand[0], member, image);
        if (s->kind == RELU) {
            const real *slope = a + offset, *gap = at(&s->operand[1], member, image) + offset;
            const real *intercept = at(&s->operand[2], member, image) + offset;
            for (int64_t i = 0; i < length; i += LANES) {
                const vec v = *(vec *)(x + i), negative = (vec)((ivec)v & (v < zero));
                *(vec *)(x + i) = v * *(const vec *)(slope + i) + negative * *(const vec *)(gap + i);
                sum += negative * *(const vec *)(intercept + i);
            }
        } else if (s->kind == VALUE || s->kind == SPREAD) {
            const real *point = a + offset;
            int64_t i = 0;
            for (; i + LANES <= length; i += LANES) {
                const vec v = *(vec *)(x + i);
                sum += (s->kind == SPREAD ? -absolute(v) : v) * *(const vec *)(point + i);
            }
            for (; i < length; i++) rest += (s->kind == SPREAD && x[i] > 0 ? -x[i] : x[i]) * point[i];
        } else {
            for (int64_t p = 0; p < length; p += s->channels)
                for (int64_t i = 0; i < s->channels; i += LANES) {
                    const vec v = *(vec *)(x + p + i), b = *(const vec *)(a + i);
                    if (s->kind == SCALE) *(vec *)(x + p + i) = v * b;
                    else sum += v * b;
                }
        }
    }
    return total(sum) + rest;
}

/* The starting row, cut to the layer. */
static Region load(const Task *t, int64_t member, int64_t row, real *out) {
    const int64_t i = t->position[row] / t->columns, j = t->position[row] % t->columns;
    const int64_t top = i * t->stride[0] - t->padding[0], left = j * t->stride[1] - t->padding[1];
    Region r = {most(0, top), most(0, left), 0, 0};
    r.h = most(0, least(t->height, top + t->patch[0]) - r.y), r.w = most(0, least(t->width, left + t->patch[1]) - r.x);
    const int64_t pitch = (r.w + 2 * t->halo) * t->padded;
    const real *start = at(&t->start, member, t->image[row]) + t->form[row] * t->patch[0] * t->patch[1] * t->channels;
    for (int64_t y = 0; y < r.h; y++) {
        const real *from = start + ((r.y - top + y) * t->patch[1] + r.x - left) * t->channels;
        real *to = out + y * pitch;
        memset(to, 0, sizeof(real) * pitch);
        to += t->halo * t->padded;
        for (int64_t x = 0; x < r.w; x++)
            memcpy(to + x * t->padded, from + x * t->channels, sizeof(real) * t->channels);
    }
    return r;
}
