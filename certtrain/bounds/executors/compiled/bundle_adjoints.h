/* The derivatives of the steps of bundles, from the last one back to the first.
 *
 * `d` are derivatives in a bundle's rows, shaped like them. Behind an activation those of what it blocks are zero, or of
 * no account: its lines are, too. Derivatives that rows share are sums over lanes. */
#pragma once
#include "bundle_product_adjoints.h"
#include "bundles.h"

/* Derivatives of one bundle. `g` are those in the bounds, zero in lanes that hold no row. */
typedef struct {
    const Task *task;
    const int64_t *index; /* of its rows */
    int64_t rows, thread, image;
    vec g;
} Bundle;

/* Makes the derivatives before lines from those behind them. */
static void bundle_follow_lines_adjoint(const Bundle *b, const Step *s, const State *from, const Passed *passed,
                                        const vec *after, vec *before, Totals *totals) {
    const Region r = from->region;
    const int64_t c = s->channels;
    const vec zero = {0}, *x = from->row;
    memset(before, 0, sizeof(vec) * r.h * r.w * c);
    for (int64_t y = 0, pixel = 0; y < r.h; y++)
        for (int64_t j = 0; j < r.w; j++, pixel++, x += c, after += c, before += c) {
            const int64_t offset = ((r.y + y) * s->width + r.x + j) * c;
            const real *line[3];
            real *by[3];
            for (int k = 0; k < 3; k++) {
                line[k] = at(&s->operand[k], 0, b->image) + offset;
                by[k] = of(&s->gradient[k], b->thread, b->image) + offset;
            }
            const Listed some = passing(passed, pixel, c);
            for (int64_t k = 0; k < some.count; k++) {
                const int64_t i = channel(some, k);
                const vec v = x[i], e = after[i];
                const ivec below = v < zero;
                const vec negative = (vec)((ivec)v & below), extra = e * line[1][i] + b->g * line[2][i];
                add_total(totals, e * v, by[0] + i);
                add_total(totals, e * negative, by[1] + i);
                add_total(totals, b->g * negative, by[2] + i);
                before[i] = e * line[0][i] + (vec)((ivec)extra & below);
            }
        }
}

/* A step that adds the form's value at a point, takes away how far it moves around one, or adds what is positive of it. */
static void bundle_point_adjoint(const Bundle *b, const Step *s, const State *from, vec *d, Totals *totals) {
    const Region r = from->region;
    const int64_t length = r.w * s->channels;
    const vec zero = {0}, *x = from->row;
    for (int64_t y = 0; y < r.h; y++, x += length, d += length) {
        const int64_t offset = ((r.y + y) * s->width + r.x) * s->channels;
        const real *point = at(&s->operand[0], 0, b->image) + offset;
        real *by = s->gradient[0].data ? of(&s->gradient[0], b->thread, b->image) + offset : NULL;
        for (int64_t i = 0; i < length; i++) {
            const ivec below = x[i] < zero, above = x[i] > zero;
            vec factor = b->g;
            if (s->kind == POSITIVE) factor = (vec)((ivec)b->g & ~below);
            if (s->kind == SPREAD) factor = (vec)((ivec)b->g & below) - (vec)((ivec)b->g & above);
            d[i] += factor * point[i];
            if (by) add_total(totals, factor * x[i], by + i);
        }
    }
}

static void bundle_shift_adjoint(const Bundle *b, const Step *s, const State *from, const vec *d, Totals *totals) {
    const Region r = from->region;
    const int64_t length = r.w * s->channels;
    for (int64_t y = 0; y < r.h; y++, d += length) {
        real *by = of(&s->gradient[0], b->thread, b->image) + ((r.y + y) * s->width + r.x) * s->channels;
        for (int64_t i = 0; i < length; i++) add_total(totals, d[i], by + i);
    }
}

/* A step with one number per channel: a factor, or what the form's value at the offset adds. */
static void bundle_channel_adjoint(const Bundle *b, const Step *s, const State *from, vec *d, Totals *totals) {
    const int64_t c = s->channels, pixels = from->region.h * from->region.w;
    const real *factor = at(&s->operand[0], 0, 0);
    real *by = of(&s->gradient[0], b->thread, 0);
    for (int64_t i = 0; i < c; i++) {
        vec sum = {0};
        for (int64_t k = i; k < pixels * c; k += c) {
            sum += from->row[k] * (s->kind == SCALE ? d[k] : b->g);
            d[k] = s->kind == SCALE ? d[k] * factor[i] : d[k] + b->g * factor[i];
        }
        add_total(totals, sum, by + i);
    }
}

/* Derivatives in starting rows, added to those in the forms, which are stored in bundles. */
static void bundle_unload(const Bundle *b, Region r, const Passed *passed, const vec *d) {
    const Task *t = b->task;
    const Region patch = patch_of(t, b->index[0]);
    const int64_t c = t->channels, size = patch.h * patch.w * c;
    real *start = of(&t->by_start, b->thread, b->image), *constant = of(&t->by_constant, b->thread, b->image);
    for (int64_t row = 0; row < b->rows; row++) {
        const int64_t form = t->form[b->index[row]];
        real *own = start + form / LANES * LANES * size + form % LANES;
        for (int64_t y = 0, pixel = 0; y < r.h; y++)
            for (int64_t x = 0; x < r.w; x++, pixel++) {
                real *to = own + ((r.y - patch.y + y) * patch.w + r.x - patch.x + x) * c * LANES;
                const Listed some = passing(passed, pixel, c);
                for (int64_t k = 0; k < some.count; k++) {
                    const int64_t i = channel(some, k);
                    to[i * LANES] += d[pixel * c + i][row];
                }
            }
        constant[form] += t->by_lower[b->index[row]];
    }
}

/* How the memory of one bundle's derivatives is divided. */
typedef struct {
    int64_t states, scratch; /* vectors: all states and two sets of derivatives; what weights' derivatives are made of */
    int64_t lists;           /* int32 */
} Division;

static Division divided(const Task *t) {
    Division m = {3 * t->space, 0, 2 * t->space};
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        const int64_t height = i ? s[-1].height : t->height, width = i ? s[-1].width : t->width, depth = depth_at(t, i);
        m.states += changes(s) * t->space, m.lists += 2 * (s->kind == LINES) * t->space;
        m.scratch = most(m.scratch, scratch_of(s, height, width, t->space / most(1, depth), depth));
    }
    m.scratch += 2 * LANES;
    return m;
}

/* The rows again, every state of them kept: what goes into products is needed for the derivatives of their weights.
 * `reached` is what the activation behind each product lets through. */
static void record(const Bundle *b, State *state, Passed *reached, vec *tape, int32_t *numbers) {
    const Task *t = b->task;
    double ignored[LANES] = {0};
    Passed ahead = {numbers, numbers + t->space, 0}; /* what the next activation lets through */
    state[0] = (State){tape, bundle_region(t, b->index[0]), {NULL, NULL, 0}};
    note_step(t, 0, 0, b->image, state[0].region, &ahead);
    bundle_load(t, 0, b->index, b->rows, &ahead, tape);
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        const State *from = &state[i];
        const int64_t depth = depth_at(t, i), size = from->region.h * from->region.w * depth;
        State *to = &state[i + 1];
        *to = *from, reached[i].known = 0;
        if (!changes(s)) continue;
        to->row = tape += t->space;
        if (is_product(s)) {
            to->region = after_product(s, from->region), to->passed.known = 0;
            note_step(t, i + 1, 0, b->image, to->region, &ahead);
            reached[i] = ahead;
            bundle_product(s, 0, from->region, from->row, depth, &from->passed, &ahead, to->row);
            continue;
        }
        memcpy(to->row, from->row, sizeof(vec) * size);
        if (s->kind == SCALE) bundle_scale(s, 0, to->region, to->row);
        if (s->kind == SHIFT) bundle_shift(s, 0, b->image, to->region, to->row), to->passed.known = 0;
        if (s->kind != LINES) continue;
        if (ahead.known) bundle_follow_listed(s, 0, b->image, to->region, &ahead, to->row, ignored);
        else {
            /* A lower line with an intercept may have the slope zero, and yet a derivative in it. */
            if (!i || s[-1].kind != POSITIVE) note_step(t, i, 0, b->image, to->region, &ahead);
            bundle_follow_lines(s, 0, b->image, to->region, to->row, ignored);
        }
        to->passed = ahead, numbers += 2 * t->space;
        ahead = (Passed){numbers, numbers + t->space, 0};
    }
}

/* Adds the derivatives of rows that share image and position. */
static void differentiate_bundle(const Task *t, int64_t thread, const int64_t *index, int64_t rows, const Division *m,
                                 real *memory) {
    Bundle b = {t, index, rows, thread, t->image[index[0]], {0}};
    State state[t->count + 1];
    Passed reached[t->count];
    Totals totals = {.count = 0};
    vec *d = (vec *)memory, *e = d + t->space, *tape = e + t->space;
    real *scratch = memory + m->states * LANES;
    for (int64_t k = 0; k < rows; k++) b.g[k] = t->by_lower[index[k]];
    record(&b, state, reached, tape, (int32_t *)(scratch + m->scratch * LANES));
    const Region last = state[t->count].region;
    memset(d, 0, sizeof(vec) * last.h * last.w * depth_at(t, t->count));
    for (int64_t i = t->count - 1; i >= 0; i--) {
        const Step *s = &t->steps[i];
        const int64_t depth = depth_at(t, i);
        real *by_weight = is_product(s) ? of(&s->gradient[0], thread, 0) : NULL;
        switch (s->kind) {
            case CONVOLUTION:
                bundle_convolve_adjoint(s, &state[i], depth, &reached[i], d, rows, scratch, e, by_weight);
                break;
            case THIN_CONVOLUTION:
                bundle_convolve_thin_adjoint(s, &state[i], depth, d, rows, scratch, e, by_weight);
                break;
            case LINEAR:
                bundle_multiply_adjoint(s, &state[i], depth, &reached[i], d, rows, scratch, e, by_weight);
                break;
            case LINES:
                bundle_follow_lines_adjoint(&b, s, &state[i], &state[i + 1].passed, d, e, &totals);
                break;
            case SHIFT: bundle_shift_adjoint(&b, s, &state[i], d, &totals); break;
            case VALUE:
            case POSITIVE:
            case SPREAD: bundle_point_adjoint(&b, s, &state[i], d, &totals); break;
            default: bundle_channel_adjoint(&b, s, &state[i], d, &totals);
        }
        if (is_product(s) || s->kind == LINES) {
            vec *swap = d;
            d = e, e = swap;
        }
    }
    add_totals(&totals);
    const Passed all = {NULL, NULL, 0};
    bundle_unload(&b, state[0].region, t->steps[0].kind == LINES ? &state[1].passed : &all, d);
}
