/* Outputs of a network at points, and derivatives by the points alone: images side by side, one in each lane.
 *
 * Borders that a convolution reads beyond an image are zeros in memory, which whoever calls has cleared: no loop asks
 * where an image ends.
 */
#include <stddef.h>

#include "task.h"
#include "team.h"

/* Pixels times channels whose sums are held in registers. */
#ifdef __AVX512F__
#define PIXELS 3
#else
#define PIXELS 1
#endif
#define CHANNELS 8

/* Kept in step with evaluation.py. */
enum { INPUT, FLATTENED, CHANNEL_SCALES, PRODUCTS };

typedef struct {
    const real *data;
    int64_t tap, depth, output; /* numbers from one to the next */
} Weight;

typedef struct {
    int64_t kind, channels, height, width; /* of what it gives */
    int64_t around[2];                     /* zeros around its values, at both ends */
    int64_t before[2], after[2];           /* zeros around derivatives in them */
    int64_t kernel[2], stride[2], padding[2];
    int64_t rectified; /* a ReLU follows */
    const real *bias;  /* of each channel, or NULL */
    Weight forwards, backwards;
    int64_t values, derivatives; /* where both begin in the memory of a bundle */
} Layer;

typedef struct {
    const Layer *layers;
    int64_t count, joint; /* from which layer on everything has one pixel, and products join bundles */
    int64_t batch, group; /* bundles that are joined */
    int64_t space;        /* numbers in the memory of a bundle */
    real *memory;
    const real *points; /* [batch][inputs] */
    real *outputs;      /* [batch][outputs] */
    const real *by_outputs;
    real *by_points;
} Evaluation;

_Static_assert(sizeof(Layer) == 28 * 8 && sizeof(Evaluation) == 11 * 8, "evaluation.py counts other numbers");

typedef struct {
    real *data;         /* the first pixel */
    int64_t row, plane; /* numbers from one to the next */
} Image;

static Image image(real *data, const Layer *l, const int64_t *before, const int64_t *after) {
    const int64_t row = (l->width + before[1] + after[1]) * LANES, plane = (l->height + before[0] + after[0]) * row;
    return (Image){data + before[0] * row + before[1] * LANES, row, plane};
}

static Image values(real *memory, const Layer *l) { return image(memory + l->values, l, l->around, l->around); }
static Image derivatives(real *memory, const Layer *l) { return image(memory + l->derivatives, l, l->before, l->after); }

/* out[c][p] = bias[c] + sum over taps t and depth d of in[t][d][p] * weight[t][d][c]; a ReLU may follow, or only what
 * is positive in `mask` is kept. */
typedef struct {
    int64_t taps, depth, channels, count;
    int64_t in_pixel, in_plane, out_pixel, out_plane, mask_plane, weight_depth, weight_output;
    const real *bias, *mask;
    real *out;
    int64_t rectified;
} Sums;

static inline __attribute__((always_inline)) void tile(const int pixels, const int channels, const Sums *s,
                                                       const real *const *in, const real *const *weight, int64_t p,
                                                       int64_t c) {
    const int64_t in_pixel = s->in_pixel, in_plane = s->in_plane, next = s->weight_depth, other = s->weight_output;
    vec sum[8][CHANNELS];
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++)
#pragma GCC unroll 8
        for (int o = 0; o < channels; o++) sum[i][o] = (vec){0} + (s->bias ? s->bias[c + o] : 0);
    for (int64_t t = 0; t < s->taps; t++) {
        const real *x = in[t] + p * in_pixel, *w = weight[t] + c * other;
        for (int64_t d = 0; d < s->depth; d++, x += in_plane, w += next) {
            vec v[8];
#pragma GCC unroll 8
            for (int i = 0; i < pixels; i++) v[i] = *(const vec *)(x + i * in_pixel);
#pragma GCC unroll 8
            for (int o = 0; o < channels; o++) {
                const real k = w[o * other];
#pragma GCC unroll 8
                for (int i = 0; i < pixels; i++) sum[i][o] += v[i] * k;
            }
        }
    }
    const vec zero = {0};
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++)
#pragma GCC unroll 8
        for (int o = 0; o < channels; o++) {
            const int64_t pixel = (p + i) * s->out_pixel;
            vec y = sum[i][o];
            if (s->rectified) y = (vec)((ivec)y & ~(y < zero)); /* a NaN stays */
            if (s->mask) y = (vec)((ivec)y & ~(*(const vec *)(s->mask + (c + o) * s->mask_plane + pixel) <= zero));
            *(vec *)(s->out + (c + o) * s->out_plane + pixel) = y;
        }
}

static void sums(const Sums *s, const real *const *in, const real *const *weight) {
    int64_t c = 0;
    for (; c + CHANNELS <= s->channels; c += CHANNELS) {
        int64_t p = 0;
        for (; p + PIXELS <= s->count; p += PIXELS) tile(PIXELS, CHANNELS, s, in, weight, p, c);
        for (; p < s->count; p++) tile(1, CHANNELS, s, in, weight, p, c);
    }
    for (; c < s->channels; c++) {
        int64_t p = 0;
        for (; p + 8 <= s->count; p += 8) tile(8, 1, s, in, weight, p, c);
        for (; p + 2 <= s->count; p += 2) tile(2, 1, s, in, weight, p, c);
        for (; p < s->count; p++) tile(1, 1, s, in, weight, p, c);
    }
}

/* Of several bundles, `apart` numbers from one to the next, where there is one pixel: they are as pixels then. */
static void convolve(const Layer *l, Image x, int64_t depth, Image y, int64_t bundles, int64_t apart) {
    const int64_t taps = l->kernel[0] * l->kernel[1];
    const real *in[taps], *weight[taps];
    Sums s = {.taps = taps, .depth = depth, .channels = l->channels, .count = l->width,
              .in_pixel = l->stride[1] * LANES, .in_plane = x.plane, .out_pixel = LANES, .out_plane = y.plane,
              .weight_depth = l->forwards.depth, .weight_output = l->forwards.output, .bias = l->bias,
              .rectified = l->rectified};
    if (bundles > 1) s.count = bundles, s.in_pixel = s.out_pixel = apart;
    for (int64_t row = 0; row < l->height; row++) {
        for (int64_t t = 0; t < taps; t++) {
            const int64_t i = t / l->kernel[1], j = t % l->kernel[1];
            in[t] = x.data + (row * l->stride[0] - l->padding[0] + i) * x.row + (j - l->padding[1]) * LANES;
            weight[t] = l->forwards.data + t * l->forwards.tap;
        }
        s.out = y.data + row * y.row;
        sums(&s, in, weight);
    }
}

/* Pixels whose distance is the stride read the same coefficients, each from its own window. */
static void transpose(const Layer *l, Image g, const Layer *to, Image x, Image mask, int64_t bundles, int64_t apart) {
    const real *in[l->kernel[0] * l->kernel[1] + 1], *weight[l->kernel[0] * l->kernel[1] + 1];
    Sums s = {.depth = l->channels, .channels = to->channels, .in_pixel = LANES, .in_plane = g.plane,
              .out_pixel = l->stride[1] * LANES, .out_plane = x.plane, .mask_plane = mask.plane,
              .weight_depth = l->backwards.depth, .weight_output = l->backwards.output};
    for (int64_t row = 0; row < to->height; row++)
        for (int64_t column = 0; column < least(l->stride[1], to->width); column++) {
            const int64_t y = row + l->padding[0], first = column + l->padding[1];
            s.taps = 0, s.count = (to->width - column + l->stride[1] - 1) / l->stride[1];
            if (bundles > 1) s.count = bundles, s.in_pixel = s.out_pixel = apart;
            for (int64_t i = y % l->stride[0]; i < l->kernel[0]; i += l->stride[0])
                for (int64_t j = first % l->stride[1]; j < l->kernel[1]; j += l->stride[1]) {
                    in[s.taps] = g.data + (y - i) / l->stride[0] * g.row + (first - j) / l->stride[1] * LANES;
                    weight[s.taps++] = l->backwards.data + (i * l->kernel[1] + j) * l->backwards.tap;
                }
            s.out = x.data + row * x.row + column * LANES;
            s.mask = to->rectified ? mask.data + row * mask.row + column * LANES : NULL;
            sums(&s, in, weight);
        }
}

/* What a layer reads, as it stands there without borders: what a flattened image is. */
static Image flat(real *data, const Layer *read) {
    return (Image){data, read->width * LANES, read->height * read->width * LANES};
}

/* One factor and one term per channel of `shape`, or none: y = factor * x + term. */
static void scale(const Layer *l, const Layer *shape, Image x, Image y, const real *term, int rectified, const Image *mask) {
    const vec zero = {0};
    for (int64_t c = 0; c < shape->channels; c++)
        for (int64_t row = 0; row < shape->height; row++)
            for (int64_t i = 0; i < shape->width * LANES; i += LANES) {
                vec v = *(const vec *)(x.data + c * x.plane + row * x.row + i);
                if (l->forwards.data) v *= l->forwards.data[c];
                if (term) v += term[c];
                if (rectified) v = (vec)((ivec)v & ~(v < zero));
                if (mask) v = (vec)((ivec)v & ~(*(vec *)(mask->data + c * mask->plane + row * mask->row + i) <= zero));
                *(vec *)(y.data + c * y.plane + row * y.row + i) = v;
            }
}

/* Between [batch][numbers] and lanes; lanes without an image hold the last one's. */
static void exchange(const Evaluation *e, int64_t bundle, const Layer *l, Image x, const real *from, real *to) {
    const int64_t numbers = l->channels * l->height * l->width, first = bundle * LANES;
    int64_t i = 0;
    for (int64_t c = 0; c < l->channels; c++)
        for (int64_t row = 0; row < l->height; row++)
            for (int64_t column = 0; column < l->width; column++, i++) {
                real *own = x.data + c * x.plane + row * x.row + column * LANES;
                if (from)
                    for (int64_t k = 0; k < LANES; k++) own[k] = from[least(first + k, e->batch - 1) * numbers + i];
                else
                    for (int64_t k = 0; k < least(LANES, e->batch - first); k++) to[(first + k) * numbers + i] = own[k];
            }
}

/* A layer of several bundles. */
static void layer_forwards(const Evaluation *e, const Layer *l, real *memory, int64_t bundles) {
    if (l->kind == PRODUCTS && l - e->layers >= e->joint) {
        convolve(l, values(memory, l - 1), l[-1].channels, values(memory, l), bundles, e->space);
        return;
    }
    for (; bundles; bundles--, memory += e->space) {
        const Image x = values(memory, l - 1), y = values(memory, l);
        if (l->kind == PRODUCTS) convolve(l, x, l[-1].channels, y, 1, 0);
        else scale(l, l - 1, x, l->kind == FLATTENED ? flat(y.data, l - 1) : y, l->bias, (int)l->rectified, NULL);
    }
}

static void layer_backwards(const Evaluation *e, const Layer *l, real *memory, int64_t bundles) {
    if (l->kind == PRODUCTS && l - e->layers >= e->joint) {
        transpose(l, derivatives(memory, l), l - 1, derivatives(memory, l - 1), values(memory, l - 1), bundles, e->space);
        return;
    }
    for (; bundles; bundles--, memory += e->space) {
        const Image g = derivatives(memory, l), x = derivatives(memory, l - 1), mask = values(memory, l - 1);
        if (l->kind == PRODUCTS) transpose(l, g, l - 1, x, mask, 1, 0);
        else scale(l, l - 1, l->kind == FLATTENED ? flat(g.data, l - 1) : g, x, NULL, 0, l[-1].rectified ? &mask : NULL);
    }
}

static int64_t bundles_of(const Evaluation *e) { return (e->batch + LANES - 1) / LANES; }

static void forwards(const void *work, int64_t part) {
    const Evaluation *e = work;
    const int64_t first = part * e->group, count = least(e->group, bundles_of(e) - first);
    const Layer *out = e->layers + e->count - 1;
    real *memory = e->memory + first * e->space;
    for (int64_t b = 0; b < count; b++) {
        exchange(e, first + b, e->layers, values(memory + b * e->space, e->layers), e->points, NULL);
        for (int64_t i = 1; i < e->joint; i++) layer_forwards(e, e->layers + i, memory + b * e->space, 1);
    }
    for (int64_t i = e->joint; i < e->count; i++) layer_forwards(e, e->layers + i, memory, count);
    for (int64_t b = 0; b < count; b++) exchange(e, first + b, out, values(memory + b * e->space, out), NULL, e->outputs);
}

static void backwards(const void *work, int64_t part) {
    const Evaluation *e = work;
    const int64_t first = part * e->group, count = least(e->group, bundles_of(e) - first);
    const Layer *out = e->layers + e->count - 1;
    real *memory = e->memory + first * e->space;
    for (int64_t b = 0; b < count; b++)
        exchange(e, first + b, out, derivatives(memory + b * e->space, out), e->by_outputs, NULL);
    for (int64_t i = e->count - 1; i >= e->joint; i--) layer_backwards(e, e->layers + i, memory, count);
    for (int64_t b = 0; b < count; b++) {
        for (int64_t i = e->joint - 1; i > 0; i--) layer_backwards(e, e->layers + i, memory + b * e->space, 1);
        exchange(e, first + b, e->layers, derivatives(memory + b * e->space, e->layers), NULL, e->by_points);
    }
}

static int64_t parts(const Evaluation *e) { return (bundles_of(e) + e->group - 1) / e->group; }

int64_t certtrain_lanes(void) { return LANES; }

void certtrain_evaluate(const Evaluation *e, int64_t threads, Parallel parallel) {
    run(e, parts(e), threads, parallel, forwards);
}

void certtrain_evaluate_back(const Evaluation *e, int64_t threads, Parallel parallel) {
    run(e, parts(e), threads, parallel, backwards);
}
