/* The steps of back-substitution for a bundle: as many rows of one image and position as a vector has numbers, one in each
 * lane.
 *
 * All of them have the same rectangle, [h][w][channels][lane]; channels are not padded, and no halo is needed. What the
 * rows share, which is everything but their coefficients, is read as single numbers that fill a vector.
 */
#pragma once
#include "bundle_products.h"

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

/* Numbers of a rectangle whose lines are zero, [h] of `length`, each `pitch` behind the one before. */
static int64_t zeros(const real *slope, const real *gap, const real *intercept, int64_t h, int64_t length, int64_t pitch) {
    const vec none = {0};
    ivec found = {0};
    int64_t sum = 0;
    for (int64_t y = 0; y < h; y++, slope += pitch, gap += pitch, intercept += pitch) {
        int64_t i = 0;
        for (; i + LANES <= length; i += LANES)
            found -= (*(const vec *)(slope + i) == none) & (*(const vec *)(gap + i) == none) &
                     (*(const vec *)(intercept + i) == none);
        for (; i < length; i++) sum += (slope[i] == 0) & (gap[i] == 0) & (intercept[i] == 0);
    }
    for (int64_t k = 0; k < LANES; k++) sum += found[k];
    return sum;
}

/* Which channels of each pixel an activation does not block, so that coefficients before it may be something and those
 * behind it matter. Where few are blocked, leaving them out costs more than reading them. */
static void note(Passed *passed, const Step *s, int64_t member, int64_t image, Region r) {
    const int64_t c = s->channels, pitch = s->width * c, corner = (r.y * s->width + r.x) * c;
    const real *slope = at(&s->operand[0], member, image) + corner, *gap = at(&s->operand[1], member, image) + corner;
    const real *intercept = at(&s->operand[2], member, image) + corner;
    passed->known = FEW_BLOCKED * zeros(slope, gap, intercept, r.h, r.w * c, pitch) >= r.h * r.w * c;
    for (int64_t y = 0; passed->known && y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++) {
            const int64_t pixel = y * r.w + x, from = y * pitch + x * c;
            int32_t *which = passed->which + pixel * c, count = 0;
            for (int32_t i = 0; i < c; i++) {
                which[count] = i;
                count += (slope[from + i] != 0) | (gap[from + i] != 0) | (intercept[from + i] != 0);
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

static void bundle_follow_lines(const Step *s, int64_t member, int64_t image, Region r, vec *x, double *added) {
    vec sum[PARTS] = {{0}};
    const int64_t length = r.w * s->channels, corner = (r.y * s->width + r.x) * s->channels;
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

/* The same where all that is blocked is zero already. */
static void bundle_follow_listed(const Step *s, int64_t member, int64_t image, Region r, const Passed *passed, vec *x,
                                 double *added) {
    vec sum[PARTS] = {{0}};
    const int64_t c = s->channels;
    for (int64_t y = 0; y < r.h; y++)
        for (int64_t j = 0; j < r.w; j++, x += c) {
            const int64_t pixel = y * r.w + j, offset = ((r.y + y) * s->width + r.x + j) * c;
            const real *slope = at(&s->operand[0], member, image) + offset;
            const real *gap = at(&s->operand[1], member, image) + offset;
            const real *intercept = at(&s->operand[2], member, image) + offset;
            const Listed some = passing(passed, pixel, c);
            for (int64_t k = 0; k < some.count; k++) {
                const int64_t i = channel(some, k);
                sum[k % PARTS] = relaxed(x + i, slope[i], gap[i], intercept[i], sum[k % PARTS]);
            }
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

/* The region of starting rows, which share image and position. */
static Region bundle_region(const Task *t, int64_t row) { return first_region(t, patch_of(t, row)); }

/* Forms are stored in bundles, [forms / LANES][patch][channels][lane]: those of rows that follow each other are copied.
 * Lanes that are left over hold some other form, and are computed for nothing. What the first activation blocks is zero. */
static void bundle_load(const Task *t, int64_t member, const int64_t *index, int64_t rows, const Passed *passed, vec *out) {
    const Region patch = patch_of(t, index[0]), r = first_region(t, patch);
    const int64_t c = t->channels, size = patch.h * patch.w * c;
    const real *start = at(&t->start, member, t->image[index[0]]), *from[LANES];
    int together = t->form[index[0]] % LANES == 0;
    for (int64_t k = 0; k < LANES; k++) {
        const int64_t form = t->form[index[least(k, rows - 1)]];
        from[k] = start + form / LANES * LANES * size + form % LANES;
        together &= k >= rows || form == t->form[index[0]] + k;
    }
    for (int64_t y = 0, pixel = 0; y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++, pixel++, out += c) {
            const int64_t offset = ((r.y - patch.y + y) * patch.w + r.x - patch.x + x) * c * LANES;
            const Listed some = passing(passed, pixel, c);
            if (!some.which && together) {
                memcpy(out, from[0] + offset, sizeof(vec) * c);
                continue;
            }
            if (some.which) memset(out, 0, sizeof(vec) * c);
            for (int64_t j = 0; j < some.count; j++) {
                const int64_t i = channel(some, j);
                if (together) out[i] = *(const vec *)(from[0] + offset + i * LANES);
                else
                    for (int64_t k = 0; k < LANES; k++) ((real *)(out + i))[k] = from[k][offset + i * LANES];
            }
        }
}

/* Rows along lines. `wanted` says what these let through, if it is known already; then it is `passed`. */
static void bundle_follow(const Step *s, int64_t member, int64_t image, Region r, vec *x, Passed *passed, Passed *wanted,
                          double *added) {
    if (wanted->known) bundle_follow_listed(s, member, image, r, wanted, x, added);
    else {
        note(wanted, s, member, image, r);
        bundle_follow_lines(s, member, image, r, x, added);
    }
    const Passed swap = *passed;
    *passed = *wanted, *wanted = swap;
    wanted->known = 0;
}

/* What an activation blocks that is the step with this number: nobody needs to compute it before. */
static void note_step(const Task *t, int64_t i, int64_t member, int64_t image, Region r, Passed *wanted) {
    wanted->known = 0;
    if (i < t->count && t->steps[i].kind == LINES) note(wanted, &t->steps[i], member, image, r);
}

/* What rows read after a product. */
static Region after_product(const Step *s, Region r) {
    return s->kind == LINEAR ? (Region){0, 0, s->height, s->width} : widened(s, r);
}

static void bundle_product(const Step *s, int64_t member, Region r, const vec *in, int64_t depth, const Passed *passed,
                           const Passed *wanted, vec *out) {
    if (s->kind == CONVOLUTION) bundle_convolve(s, member, r, in, depth, passed, wanted, out);
    else if (s->kind == THIN_CONVOLUTION) bundle_convolve_thin(s, member, r, in, depth, passed, out);
    else bundle_multiply(s, member, in, depth, passed, wanted, out);
}

/* Lower bounds of rows that share image and position. */
static void substitute_bundle(const Task *t, int64_t member, const int64_t *index, int64_t rows, real *memory) {
    vec *a = (vec *)memory, *b = a + t->space;
    int32_t *numbers = (int32_t *)(b + t->space);
    /* What the rows may be, and what the activation ahead lets through. */
    Passed passed = {numbers, numbers + t->space, 0}, wanted = {numbers + 2 * t->space, numbers + 3 * t->space, 0};
    double added[LANES] = {0};
    const int64_t image = t->image[index[0]];
    Region r = bundle_region(t, index[0]);
    note_step(t, 0, member, image, r, &wanted);
    bundle_load(t, member, index, rows, &wanted, a);
    int checked = t->steps[0].kind == LINES; /* by whoever calls: in the forms, once for all rows */
    int64_t depth = t->padded;
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        if (is_product(s)) {
            const Region n = after_product(s, r);
            wanted.known = 0;
            if (checked) note_step(t, i + 1, member, image, n, &wanted);
            bundle_product(s, member, r, a, depth, &passed, &wanted, b);
            vec *swap = a;
            a = b, b = swap, r = n;
            passed.known = 0;
        }
        switch (s->kind) {
            case LINES:
                if (!checked) check(a, r.h * r.w * depth, added);
                checked = 1;
                bundle_follow(s, member, image, r, a, &passed, &wanted, added);
                break;
            case VALUE: bundle_value(s, member, image, r, a, added); break;
            case POSITIVE: bundle_positive(s, member, image, r, a, added); break;
            case SHIFT:
                bundle_shift(s, member, image, r, a);
                passed.known = 0; /* what was blocked may be something now */
                break;
            case SPREAD: bundle_spread(s, member, image, r, a, added); break;
            case OFFSET: bundle_offset(s, member, r, a, added); break;
            case SCALE: bundle_scale(s, member, r, a); break;
            default:;
        }
        depth = s->channels;
    }
    const real *constant = at(&t->constant, member, image);
    for (int64_t k = 0; k < rows; k++)
        t->lower[member * t->rows + index[k]] = (real)(constant[t->form[index[k]]] + added[k]);
}
