/* The derivatives of products of bundles: in what they read, and in their weights. */
#pragma once
#include "bundle_sums.h"
#include "steps.h"

static void bundle_convolve_adjoint(const Step *s, const State *from, int64_t depth, const Passed *reached, const vec *d,
                                    int64_t rows, real *scratch, vec *before, real *by_weight) {
    const int64_t c = s->channels, kh = s->kernel[0], kw = s->kernel[1];
    const int64_t wide = vectors(depth), padded = wide * LANES;
    const Region r = from->region, n = widened(s, r);
    Tap tapped[kh * kw];
    for (int64_t y = 0; y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++) {
            const int64_t top = (r.y + y) * s->stride[0] - s->padding[0] - n.y;
            const int64_t left = (r.x + x) * s->stride[1] - s->padding[1] - n.x;
            int64_t taps = 0;
            for (int64_t ky = most(0, -top); ky < least(kh, n.h - top); ky++)
                for (int64_t kx = most(0, -left); kx < least(kw, n.w - left); kx++) {
                    const real *w = s->transposed + (ky * kw + kx) * c * depth;
                    tapped[taps] = tap(reached, (top + ky) * n.w + left + kx, d, c, w);
                    taps += tapped[taps].read.count > 0;
                }
            const int64_t pixel = y * r.w + x;
            pixel_sums(&from->passed, pixel, depth, taps, tapped, depth, before + pixel * depth);
        }
    turn(from->row, &from->passed, r.h * r.w, depth, rows, scratch);
    Origin origin[kh * kw];
    const real *in[kh * kw];
    real *by[kh * kw];
    for (int64_t i = 0, pixel = 0; i < n.h; i++)
        for (int64_t j = 0; j < n.w; j++, pixel++) {
            if (reached->known && !reached->count[pixel]) continue;
            const int64_t places = origins(s, r, n.y + i, n.x + j, origin);
            for (int64_t k = 0; k < places; k++)
                in[k] = scratch + origin[k].pixel * rows * padded, by[k] = by_weight + origin[k].tap * c * padded;
            outer_of_pixel(reached, pixel, c, d, rows, padded, places, wide, in, by, padded);
        }
}

/* Onto few channels: windows of derivatives in the lanes, [row][kernel, padded]. */
static void bundle_convolve_thin_adjoint(const Step *s, const State *from, int64_t depth, const vec *d, int64_t rows,
                                         real *scratch, vec *before, real *by_weight) {
    const int64_t c = s->channels, kh = s->kernel[0], line = s->kernel[1] * c, wide = vectors(kh * line);
    const Region r = from->region, n = widened(s, r);
    const int64_t lines = most(0, (r.h - 1) * s->stride[0] + kh), width = most(0, ((r.w - 1) * s->stride[1]) * c + line);
    const int64_t window = wide * LANES, layer = lines * width;
    real *windows = scratch + rows * layer + LANES;
    const int64_t above = n.y - (r.y * s->stride[0] - s->padding[0]), aside = n.x - (r.x * s->stride[1] - s->padding[1]);
    memset(scratch, 0, sizeof(real) * (rows * layer + LANES));
    for (int64_t y = 0; y < n.h; y++)
        for (int64_t i = 0; i < n.w * c; i++)
            for (int64_t row = 0; row < rows; row++)
                scratch[row * layer + (above + y) * width + aside * c + i] = d[y * n.w * c + i][row];
    Tap tapped[kh];
    const real *in = windows;
    for (int64_t y = 0, pixel = 0; y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++, pixel++) {
            const int64_t top = y * s->stride[0] - above, left = (x * s->stride[1] - aside) * c;
            const int64_t first = most(0, -left), end = least(line, n.w * c - left);
            int64_t taps = 0;
            for (int64_t ky = most(0, -top); ky < least(kh, n.h - top); ky++)
                if (first < end)
                    tapped[taps++] = (Tap){d + (top + ky) * n.w * c + left + first,
                                           s->transposed + (ky * line + first) * depth, {NULL, end - first}};
            pixel_sums(&from->passed, pixel, depth, taps, tapped, depth, before + pixel * depth);
            if (from->passed.known && !from->passed.count[pixel]) continue;
            for (int64_t row = 0; row < rows; row++)
                for (int64_t ky = 0; ky < kh; ky++) /* what is written behind a line is written over, or never read */
                    copy_over(windows + row * window + ky * line,
                              scratch + row * layer + (y * s->stride[0] + ky) * width + x * s->stride[1] * c, line);
            outer_of_pixel(&from->passed, pixel, depth, from->row, rows, window, 1, wide, &in, &by_weight, window);
        }
}

static void bundle_multiply_adjoint(const Step *s, const State *from, int64_t depth, const Passed *reached, const vec *d,
                                    int64_t rows, real *scratch, vec *before, real *by_weight) {
    const int64_t c = s->channels, pixels = s->height * s->width, wide = vectors(depth), padded = wide * LANES;
    Tap *tapped = (Tap *)(scratch + LANES * padded); /* a layer may have more pixels than there is room for on a stack */
    const real *in = scratch;
    int64_t taps = reached->known ? 0 : 1;
    tapped[0] = (Tap){d, s->transposed, {NULL, pixels * c}}; /* all numbers of the layer in a row */
    for (int64_t pixel = 0; reached->known && pixel < pixels; pixel++) {
        tapped[taps] = tap(reached, pixel, d, c, s->transposed + pixel * c * depth);
        taps += tapped[taps].read.count > 0;
    }
    pixel_sums(&from->passed, 0, depth, taps, tapped, depth, before);
    turn(from->row, &from->passed, 1, depth, rows, scratch);
    for (int64_t pixel = 0; pixel < pixels; pixel++, by_weight += c * padded)
        outer_of_pixel(reached, pixel, c, d, rows, padded, 1, wide, &in, &by_weight, padded);
}

/* Vectors that derivatives in the weights of a step are made of, where rows before it have no more pixels. */
static int64_t scratch_of(const Step *s, int64_t height, int64_t width, int64_t most_pixels, int64_t depth) {
    const int64_t c = s->channels, padded = vectors(depth) * LANES;
    if (s->kind == CONVOLUTION) return least(height * width, most_pixels) * padded;
    if (s->kind == LINEAR) return padded + (s->height * s->width * sizeof(Tap) / sizeof(vec)) + 1;
    if (s->kind != THIN_CONVOLUTION) return 0;
    const int64_t lines = least(height, most_pixels) * s->stride[0] + s->kernel[0];
    const int64_t columns = least(width, most_pixels) * s->stride[1] + s->kernel[1];
    return lines * columns * c + (vectors(s->kernel[0] * s->kernel[1] * c) + 2) * LANES;
}
