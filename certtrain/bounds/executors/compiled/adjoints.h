/* The derivatives of the steps, from the last one back to the first.
 *
 * `d` are derivatives in a row: a rectangle like the row itself, but without halo.
 */
#pragma once
#include "steps.h"

/* The derivatives after a transposed convolution, with zeros wherever its windows leave the rectangle. */
static void spell_out(const Step *s, Region r, const real *d, real *whole) {
    const Region n = widened(s, r);
    const int64_t c = s->channels, top = n.y - (r.y * s->stride[0] - s->padding[0]);
    const int64_t left = n.x - (r.x * s->stride[1] - s->padding[1]), lines = (r.h - 1) * s->stride[0] + s->kernel[0];
    const int64_t width = (r.w - 1) * s->stride[1] + s->kernel[1];
    memset(whole, 0, sizeof(real) * lines * width * c);
    for (int64_t y = 0; y < n.h; y++)
        memcpy(whole + ((top + y) * width + left) * c, d + y * n.w * c, sizeof(real) * n.w * c);
}

static void convolve_adjoint(const Step *s, Region r, const real *row, int64_t depth, int64_t halo, const real *d,
                             real *scratch, real *before, real *by_weight) {
    const int64_t c = s->channels, kh = s->kernel[0], kw = s->kernel[1], sh = s->stride[0], sw = s->stride[1];
    const int64_t width = (r.w - 1) * sw + kw, pitch = (r.w + 2 * halo) * depth;
    const real *x[kh * kw + r.h], *w[kh * kw + r.h];
    if (!r.h || !r.w) return;
    spell_out(s, r, d, scratch);
    for (int64_t y = 0; y < r.h; y++) {
        for (int64_t k = 0; k < kh * kw; k++) {
            x[k] = scratch + ((y * sh + k / kw) * width + k % kw) * c;
            w[k] = s->transposed + k * c * depth;
        }
        const Product p = {r.w, sw * c, c, 1, depth, depth, depth, 0};
        products(&p, kh * kw, x, w, before + y * r.w * depth);
    }
    for (int64_t k = 0; k < kh * kw; k++) {
        for (int64_t y = 0; y < r.h; y++) {
            x[y] = row + y * pitch + halo * depth;
            w[y] = scratch + ((y * sh + k / kw) * width + k % kw) * c;
        }
        const Product p = {depth, 1, r.w, depth, sw * c, c, c, 1};
        products(&p, r.h, x, w, by_weight + k * depth * c);
    }
}

static void convolve_thin_adjoint(const Step *s, Region r, const real *row, int64_t depth, int64_t halo, const real *d,
                                  real *scratch, real *before, real *by_weight) {
    const int64_t c = s->channels, line = s->kernel[1] * c, width = ((r.w - 1) * s->stride[1] + s->kernel[1]) * c;
    const int64_t window = vectors(s->kernel[0] * line) * LANES;
    real *windows = scratch + ((r.h - 1) * s->stride[0] + s->kernel[0]) * width;
    if (!r.h || !r.w) return;
    spell_out(s, r, d, scratch);
    memset(windows, 0, sizeof(real) * r.w * window);
    for (int64_t y = 0; y < r.h; y++) {
        for (int64_t j = 0; j < r.w; j++)
            for (int64_t ky = 0; ky < s->kernel[0]; ky++)
                memcpy(windows + j * window + ky * line,
                       scratch + (y * s->stride[0] + ky) * width + j * s->stride[1] * c, sizeof(real) * line);
        const real *x = windows, *w = s->transposed, *in = row + (y * (r.w + 2 * halo) + halo) * depth;
        const Product back = {r.w, window, window, 1, depth, depth, depth, 0};
        products(&back, 1, &x, &w, before + y * r.w * depth);
        const Product outer = {depth, 1, r.w, depth, window, window, window, 1};
        products(&outer, 1, &in, &x, by_weight);
    }
}

/* All rows of a block; `row_step` and `d_step` lie between them. */
static void multiply_adjoint(const Step *s, int64_t rows, const real *row, int64_t row_step, int64_t depth, const real *d,
                             int64_t d_step, real *before, real *by_weight) {
    const int64_t size = s->height * s->width * s->channels;
    const Product back = {rows, d_step, size, 1, depth, depth, d_step, 0};
    products(&back, 1, &d, (const real *const *)&s->transposed, before);
    const Product outer = {depth, 1, rows, row_step, d_step, size, size, 1};
    products(&outer, 1, &row, &d, by_weight);
}

static void follow_lines_adjoint(const Step *s, int64_t thread, int64_t image, Region r, const real *row, double by_lower,
                                 real *d) {
    const int64_t length = r.w * s->channels, pitch = length + 2 * s->halo * s->channels;
    const vec zero = {0}, g = zero + (real)by_lower;
    for (int64_t y = 0; y < r.h; y++) {
        const int64_t offset = ((r.y + y) * s->width + r.x) * s->channels;
        const real *x = row + y * pitch + s->halo * s->channels, *line[3];
        real *by_line[3], *e = d + y * length;
        for (int k = 0; k < 3; k++) {
            line[k] = at(&s->operand[k], 0, image) + offset;
            by_line[k] = of(&s->gradient[k], thread, image) + offset;
        }
        for (int64_t i = 0; i < length; i += LANES) {
            const vec v = *(const vec *)(x + i), after = *(vec *)(e + i);
            const ivec below = v < zero;
            const vec negative = (vec)((ivec)v & below);
            *(vec *)(by_line[0] + i) += after * v;
            *(vec *)(by_line[1] + i) += after * negative;
            *(vec *)(by_line[2] + i) += negative * g;
            const vec extra = after * *(const vec *)(line[1] + i) + g * *(const vec *)(line[2] + i);
            *(vec *)(e + i) = after * *(const vec *)(line[0] + i) + (vec)((ivec)extra & below);
        }
    }
}

/* A step that adds the form's value at a point, takes away how far it moves around one, or adds what is positive of it. */
static void point_adjoint(const Step *s, int64_t thread, int64_t image, Region r, const real *row, real by_lower,
                          real *d) {
    const int64_t length = r.w * s->channels, pitch = length + 2 * s->halo * s->channels;
    const ivec all = first_of(LANES), rest = first_of((length - 1) % LANES + 1);
    const vec zero = {0}, one = zero + 1, g = zero + by_lower;
    for (int64_t y = 0; y < r.h; y++) {
        const int64_t offset = ((r.y + y) * s->width + r.x) * s->channels;
        const real *x = row + y * pitch + s->halo * s->channels, *point = at(&s->operand[0], 0, image) + offset;
        real *by_point = s->gradient[0].data ? of(&s->gradient[0], thread, image) + offset : NULL, *e = d + y * length;
        for (int64_t i = 0; i < length; i += LANES) {
            const ivec mask = i + LANES < length ? all : rest;
            const vec v = *(const vec *)(x + i);
            const vec sign = (vec)((ivec)one & (v < zero)) - (vec)((ivec)one & (v > zero));
            const vec positive = (vec)((ivec)one & ~(v < zero));
            const vec factor = g * (s->kind == VALUE ? one : s->kind == POSITIVE ? positive : sign);
            *(vec *)(e + i) += (vec)((ivec)(factor * *(const vec *)(point + i)) & mask);
            if (by_point) *(vec *)(by_point + i) += (vec)((ivec)(factor * v) & mask);
        }
    }
}

static void shift_adjoint(const Step *s, int64_t thread, int64_t image, Region r, const real *d) {
    const int64_t length = r.w * s->channels;
    for (int64_t y = 0; y < r.h; y++) {
        real *by = of(&s->gradient[0], thread, image) + ((r.y + y) * s->width + r.x) * s->channels;
        for (int64_t i = 0; i < length; i += LANES) *(vec *)(by + i) += *(const vec *)(d + y * length + i);
    }
}

/* A step with one number per channel. */
static void channel_adjoint(const Step *s, int64_t thread, Region r, const real *row, real by_lower, real *d) {
    const int64_t c = s->channels, pitch = (r.w + 2 * s->halo) * c;
    const real *factor = at(&s->operand[0], 0, 0);
    real *by_factor = of(&s->gradient[0], thread, 0);
    for (int64_t y = 0; y < r.h; y++)
        for (int64_t j = 0; j < r.w; j++) {
            const real *x = row + y * pitch + (s->halo + j) * c;
            real *e = d + (y * r.w + j) * c;
            for (int64_t i = 0; i < c; i++) {
                by_factor[i] += x[i] * (s->kind == SCALE ? e[i] : by_lower);
                e[i] = s->kind == SCALE ? e[i] * factor[i] : e[i] + by_lower * factor[i];
            }
        }
}

/* Derivatives in a starting row, added to those in the forms. */
static void unload(const Task *t, int64_t thread, int64_t row, Region r, const real *d) {
    const Region patch = patch_of(t, row);
    const int64_t image = t->image[row];
    real *start = of(&t->by_start, thread, image);
    start += t->form[row] * patch.h * patch.w * t->channels;
    for (int64_t y = 0; y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++) {
            real *to = start + ((r.y - patch.y + y) * patch.w + r.x - patch.x + x) * t->channels;
            for (int64_t k = 0; k < t->channels; k++) to[k] += d[(y * r.w + x) * t->padded + k];
        }
    of(&t->by_constant, thread, image)[t->form[row]] += t->by_lower[row];
}

/* The rows again, every state of them kept on a tape [states][block][space], then their derivatives.
 * All rows are of one image. */
static void differentiate(const Task *t, int64_t thread, int64_t first, int64_t rows, real *tape, real *d, real *e,
                          real *scratch) {
    const int64_t state = t->block * t->space, image = t->image[first];
    Region region[t->count + 1][rows];
    int64_t kept[t->count + 1];
    double ignored[LANES] = {0};
    for (int64_t k = 0; k < rows; k++) region[0][k] = load(t, 0, first + k, tape + k * t->space);
    kept[0] = 0;
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        const int64_t depth = depth_at(t, i), halo = i ? s[-1].halo : t->halo;
        real *row = tape + kept[i] * state, *after = row + state;
        kept[i + 1] = kept[i] + changes(s);
        memcpy(region[i + 1], region[i], sizeof(region[i]));
        if (s->kind == LINEAR) multiply(s, 0, rows, region[i + 1], row, depth, after, t->space);
        else if (changes(s))
            for (int64_t k = 0; k < rows; k++) {
                if (!is_product(s)) memcpy(after + k * t->space, row + k * t->space, sizeof(real) * t->space);
                region[i + 1][k] = apply(s, 0, image, region[i][k], (is_product(s) ? row : after) + k * t->space, depth,
                                         halo, after + k * t->space, ignored);
            }
    }
    memset(d, 0, sizeof(real) * state);
    for (int64_t i = t->count - 1; i >= 0; i--) {
        const Step *s = &t->steps[i];
        const int64_t depth = depth_at(t, i), halo = i ? s[-1].halo : t->halo;
        real *by_weight = is_product(s) ? of(&s->gradient[0], thread, 0) : NULL;
        const real *tape_row = tape + kept[i] * state;
        if (s->kind == LINEAR) multiply_adjoint(s, rows, tape_row, t->space, depth, d, t->space, e, by_weight);
        for (int64_t k = 0; k < rows && s->kind != LINEAR; k++) {
            const Region r = region[i][k];
            const real *row = tape_row + k * t->space, by_lower = t->by_lower[first + k];
            real *own = d + k * t->space, *before = e + k * t->space;
            switch (s->kind) {
                case CONVOLUTION: convolve_adjoint(s, r, row, depth, halo, own, scratch, before, by_weight); break;
                case THIN_CONVOLUTION:
                    convolve_thin_adjoint(s, r, row, depth, halo, own, scratch, before, by_weight);
                    break;
                case LINES: follow_lines_adjoint(s, thread, image, r, row, by_lower, own); break;
                case SHIFT: shift_adjoint(s, thread, image, r, own); break;
                case VALUE:
                case POSITIVE:
                case SPREAD: point_adjoint(s, thread, image, r, row, by_lower, own); break;
                default: channel_adjoint(s, thread, r, row, by_lower, own);
            }
        }
        if (is_product(s)) {
            real *swap = d;
            d = e, e = swap;
        }
    }
    for (int64_t k = 0; k < rows; k++) unload(t, thread, first + k, region[0][k], d + k * t->space);
}
