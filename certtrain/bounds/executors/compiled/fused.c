/* The element-wise parts of optimised bounds, each one pass over memory: what torch does in a dozen operations, each of
 * which writes all rows and reads them again. Rows are [rows][count]; an operand that all rows share has step 0.
 */
#include <math.h>
#include <stddef.h>

#include "task.h"
#include "team.h"

typedef struct {
    const real *data;
    int64_t step; /* numbers from one row to the next */
} Rows;

typedef struct {
    int64_t rows, count;
    Rows in, z, lower, upper, intercept; /* coefficients, pre-activations, lines; or coefficients, -, centre, radius */
    real *out, *added;                   /* [rows][count], [rows] */
    Rows free, signs;                    /* of a step: 1 where a slope is free, decisions of splits (data may be NULL) */
    real *slopes, *multipliers;          /* [rows], changed in place, with a step */
    real *moments[4];                    /* of both: mean and square */
    int64_t own;                         /* step of the last six */
    double slope_factor, multiplier_factor, momentum, scale, tiny;
} Fused;

static inline const real *of_row(Rows x, int64_t r) { return x.data + r * x.step; }

/* Positive coefficients take the lower line, negative ones the upper; the intercepts are added up. A shift, if there is
 * one, is added to the new row. */
static void follow_row(const void *work, int64_t r) {
    const Fused *w = work;
    const real *x = of_row(w->in, r), *low = of_row(w->lower, r), *up = of_row(w->upper, r);
    const real *t = of_row(w->intercept, r);
    const real *shift = w->z.data ? of_row(w->z, r) : NULL;
    real *out = w->out + r * w->count;
    const vec zero = {0};
    vec sum = {0};
    int64_t i = 0;
    for (; i + LANES <= w->count; i += LANES) {
        const vec v = *(const vec *)(x + i), negative = (vec)((ivec)v & (v < zero)), positive = v - negative;
        vec to = positive * *(const vec *)(low + i) + negative * *(const vec *)(up + i);
        if (shift) to += *(const vec *)(shift + i);
        *(vec *)(out + i) = to;
        sum += negative * *(const vec *)(t + i);
    }
    double sums[LANES] = {0};
    add_lanes(sum, sums);
    double added = total(sums);
    for (; i < w->count; i++) {
        out[i] = (x[i] < 0 ? x[i] * up[i] : x[i] * low[i]) + (shift ? shift[i] : 0);
        if (x[i] < 0) added += x[i] * t[i];
    }
    w->added[r] = (real)added;
}

/* The values of the lines that coefficients take. */
static void value_row(const void *work, int64_t r) {
    const Fused *w = work;
    const real *x = of_row(w->in, r), *z = of_row(w->z, r), *low = of_row(w->lower, r), *up = of_row(w->upper, r);
    const real *t = of_row(w->intercept, r);
    real *out = w->out + r * w->count;
    for (int64_t i = 0; i < w->count; i++) {
        const real above = z[i] * up[i] + t[i], below = z[i] * low[i];
        out[i] = x[i] < 0 ? above : below;
    }
}

/* The least value of a form on a box, and the corner where it is attained. */
static void corner_row(const void *work, int64_t r) {
    const Fused *w = work;
    const real *x = of_row(w->in, r), *center = of_row(w->lower, r), *radius = of_row(w->upper, r);
    real *out = w->out + r * w->count;
    const vec zero = {0};
    vec sum = {0};
    int64_t i = 0;
    for (; i + LANES <= w->count; i += LANES) {
        const vec v = *(const vec *)(x + i), c = *(const vec *)(center + i), d = *(const vec *)(radius + i);
        const vec towards = (vec)(((ivec)d & (v < zero)) | ((ivec)-d & (v > zero)));
        *(vec *)(out + i) = c + towards;
        sum += v * c - absolute(v) * d;
    }
    double sums[LANES] = {0};
    add_lanes(sum, sums);
    double added = total(sums);
    for (; i < w->count; i++) {
        out[i] = center[i] + (x[i] < 0 ? radius[i] : x[i] > 0 ? -radius[i] : 0);
        added += x[i] * center[i] - (x[i] < 0 ? -x[i] : x[i]) * radius[i];
    }
    w->added[r] = (real)added;
}

/* Of its own precision: through double it would not be computed in vectors. */
static inline real root(real x) { return sizeof(real) == 4 ? (real)__builtin_sqrtf((float)x) : (real)__builtin_sqrt(x); }

static inline real move(real by, real *mean, real *square, real momentum, real scale, real tiny, real factor) {
    *mean = by + momentum * (*mean - by);
    *square = by * by + scale * (*square - by * by);
    return factor * *mean / root(*square + tiny);
}

/* A step of Adam on slopes, and on multipliers where something is split. No two of its arrays share memory (ivdep), which
 * compilers cannot know, and without which they do not compute in vectors. */
static void step_row(const void *work, int64_t r) {
    const Fused *w = work;
    const real *x = of_row(w->in, r), *z = of_row(w->z, r), *free = of_row(w->free, r);
    const real momentum = (real)w->momentum, scale = (real)w->scale, tiny = (real)w->tiny;
    real *slope = w->slopes + r * w->own, *mean = w->moments[0] + r * w->own, *square = w->moments[1] + r * w->own;
    const real factor = (real)w->slope_factor;
    const int64_t count = w->count;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) {
        const real by = (x[i] > 0 ? x[i] : 0) * z[i] * free[i];
        const real to = slope[i] + move(by, mean + i, square + i, momentum, scale, tiny, factor);
        slope[i] = to < 0 ? 0 : to > 1 ? 1 : to;
    }
    if (!w->signs.data) return;
    const real *sign = of_row(w->signs, r), other = (real)w->multiplier_factor;
    real *beta = w->multipliers + r * w->own;
    mean = w->moments[2] + r * w->own, square = w->moments[3] + r * w->own;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) {
        const real by = -sign[i] * z[i];
        const real to = beta[i] + move(by, mean + i, square + i, momentum, scale, tiny, other);
        beta[i] = to < 0 ? 0 : to;
    }
}

void certtrain_follow(const Fused *w, int64_t threads, Parallel parallel) { run(w, w->rows, threads, parallel, follow_row); }
void certtrain_value(const Fused *w, int64_t threads, Parallel parallel) { run(w, w->rows, threads, parallel, value_row); }
void certtrain_corner(const Fused *w, int64_t threads, Parallel parallel) { run(w, w->rows, threads, parallel, corner_row); }
void certtrain_step(const Fused *w, int64_t threads, Parallel parallel) { run(w, w->rows, threads, parallel, step_row); }
