/* Back-substitution of linear forms through a chain of operations, a few rows at a time, from the first operation to the
 * lower bound, without leaving the core's own cache. Compiled by build.py, once for float and once for double.
 *
 * A row is held as the rectangle of the layer that it reads, [h][w][channels], clipped to the layer; a form that reads
 * all of a layer is the rectangle that covers it. Channels are padded to whole vectors with zeros. On both sides of
 * every line of pixels lies a halo of zeros, as wide as the next transposed convolution reaches.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE 12 /* pixels whose sums are in registers at once, for two vectors of channels each */
#else
#define VECTOR_BYTES 32
#define TILE 6
#endif

#ifdef CERTTRAIN_DOUBLE
typedef double real;
typedef int64_t bits;
#else
typedef float real;
typedef int32_t bits;
#endif
typedef real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
typedef bits ivec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(real)))

/* Kept in step with program.py. */
enum { RELU, VALUE, OFFSET, SCALE, CONVOLUTION, THIN_CONVOLUTION, LINEAR, SPREAD };

typedef struct {
    const real *data;
    int64_t per_member, per_image;
} Operand;

typedef struct {
    int64_t kind;
    Operand operand[3];
    int64_t height, width, channels; /* of the layer that the rows read after the step */
    int64_t kernel[2], stride[2], padding[2];
    int64_t halo; /* pixels, after the step */
} Step;

typedef struct {
    const Step *steps;
    int64_t count;
    Operand start, constant; /* rows to begin with [forms][patch], and what was already added to each [forms] */
    int64_t patch[2], channels;             /* of a starting row, channels as stored */
    int64_t height, width, padded, halo;    /* of the layer that it reads */
    int64_t columns, stride[2], padding[2]; /* of the grid of positions; a dense row has one position */
    const int32_t *image, *position, *form; /* of each row */
    int64_t rows, members;
    int64_t block, space; /* rows at a time, and numbers that one of them may take */
    real *lower;          /* [members][rows] */
} Task;

typedef struct {
    int64_t y, x, h, w; /* the rectangle */
} Region;

typedef struct {
    const Task *task;
    int64_t *next;
} Worker;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

static inline const real *at(const Operand *o, int64_t member, int64_t image) {
    return o->data + member * o->per_member + image * o->per_image;
}

static inline double total(vec v) {
    double sum = 0;
    for (int64_t i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

static inline vec absolute(vec v) {
    const bits sign = (bits)((uint64_t)1 << (8 * sizeof(bits) - 1));
    return (vec)((ivec)v & ~sign);
}

/* Sums of `pixels` x `vectors` in registers: over all taps, input channels times weights. Both counts are constants
 * where this is inlined. */
static inline __attribute__((always_inline)) void tile(const int pixels, const int vectors, int64_t taps,
                                                       const real *const *in, int64_t in_step, const real *const *weight,
                                                       int64_t depth, int64_t weight_step, real *out, int64_t out_step) {
    vec sum[TILE][2];
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) sum[p][v] = (vec){0};
    for (int64_t t = 0; t < taps; t++) {
        const real *x = in[t], *w = weight[t];
        for (int64_t d = 0; d < depth; d++, w += weight_step) {
            vec k[2];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) k[v] = *(const vec *)(w + v * LANES);
#pragma GCC unroll 16
            for (int p = 0; p < pixels; p++) {
                const real c = x[p * in_step + d];
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++) sum[p][v] += k[v] * c;
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) *(vec *)(out + p * out_step + v * LANES) = sum[p][v];
}

#define CASE(n)                                                                                  \
    case n:                                                                                      \
        if (vectors == 2) tile(n, 2, taps, in, in_step, weight, depth, weight_step, out, out_step); \
        else tile(n, 1, taps, in, in_step, weight, depth, weight_step, out, out_step);           \
        break;

static void any_tile(int64_t pixels, int64_t vectors, int64_t taps, const real *const *in, int64_t in_step,
                     const real *const *weight, int64_t depth, int64_t weight_step, real *out, int64_t out_step) {
    switch (pixels) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if TILE > 6
        CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
    }
}

/* All channels of `pixels` sums that lie `out_step` apart. */
static void products(int64_t pixels, int64_t taps, const real **in, int64_t in_step, const real **weight, int64_t depth,
                     int64_t weight_step, real *out, int64_t out_step, int64_t channels) {
    for (int64_t c = 0; c < channels; c += 2 * LANES) {
        const int64_t vectors = channels - c > LANES ? 2 : 1;
        const real *x[taps + 1], *w[taps + 1];
        for (int64_t t = 0; t < taps; t++) w[t] = weight[t] + c;
        /* Of even size: a single pixel left over would wait for its own sums. */
        const int64_t tiles = (pixels + TILE - 1) / TILE, even = tiles ? (pixels + tiles - 1) / tiles : 0;
        for (int64_t p = 0; p < pixels; p += even) {
            for (int64_t t = 0; t < taps; t++) x[t] = in[t] + p * in_step;
            any_tile(least(even, pixels - p), vectors, taps, x, in_step, w, depth, weight_step, out + p * out_step + c,
                     out_step);
        }
    }
}

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
            products(pixels, taps, x, depth, w, depth, c, line + (s->halo + phase) * c, sw * c, c);
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
        products(r.w, 1, &x, depth, &weights, depth, window, windows, window, window);
        for (int64_t k = 0; k < line; k += LANES) {
            for (int64_t i = 0; i < LANES; i++) in_line[i] = k + i < line ? -1 : 0;
            const ivec mask = *(const ivec *)in_line;
            for (int64_t p = 0; p < r.w; p++)
                for (int64_t ky = 0; ky < kh; ky++) {
                    real *o = whole + (y * s->stride[0] + ky) * pitch + p * s->stride[1] * c + k;
                    const vec v = *(const vec *)(windows + p * window + ky * line + k);
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
        products(rows, 1, &x, space, &w, depth, s->height * line, out + y * pitch + s->halo * s->channels, space, line);
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

static void substitute(const Task *t, int64_t member, int64_t first, int64_t rows, real *a, real *b) {
    Region region[rows];
    double constant[rows];
    for (int64_t k = 0; k < rows; k++) {
        region[k] = load(t, member, first + k, a + k * t->space);
        constant[k] = *(at(&t->constant, member, t->image[first + k]) + t->form[first + k]);
    }
    int64_t depth = t->padded, halo = t->halo;
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        if (s->kind == LINEAR) multiply(s, member, rows, region, a, depth, b, t->space);
        for (int64_t k = 0; k < rows && s->kind != LINEAR; k++) {
            real *row = a + k * t->space;
            if (s->kind == CONVOLUTION) region[k] = convolve(s, member, region[k], row, depth, halo, b + k * t->space);
            else if (s->kind == THIN_CONVOLUTION)
                region[k] = convolve_thin(s, member, region[k], row, depth, halo, b + k * t->space);
            else constant[k] += elementwise(s, member, t->image[first + k], region[k], row);
        }
        if (s->kind == LINEAR || s->kind == CONVOLUTION || s->kind == THIN_CONVOLUTION) {
            real *swap = a;
            a = b, b = swap;
        }
        depth = s->channels, halo = s->halo;
    }
    for (int64_t k = 0; k < rows; k++) t->lower[member * t->rows + first + k] = (real)constant[k];
}

static void *work(void *argument) {
    const Worker *worker = argument;
    const Task *t = worker->task;
    const int64_t blocks = (t->rows + t->block - 1) / t->block;
    real *memory = NULL;
    if (posix_memalign((void **)&memory, 64, sizeof(real) * (2 * t->block * t->space + 2 * LANES))) return argument;
    for (;;) {
        const int64_t next = __atomic_fetch_add(worker->next, 1, __ATOMIC_RELAXED);
        if (next >= blocks * t->members) break;
        const int64_t first = next % blocks * t->block;
        substitute(t, next / blocks, first, least(t->block, t->rows - first), memory, memory + t->block * t->space);
    }
    free(memory);
    return NULL;
}

/* Lower bounds of all rows of all members; 0, or 1 where there was no memory. */
int64_t certtrain_substitute(const Task *task, int64_t threads) {
    int64_t next = 0, failed = 0, started = 0;
    Worker worker = {task, &next};
    pthread_t pool[threads];
    while (started < threads - 1 && pthread_create(&pool[started], NULL, work, &worker) == 0) started++;
    failed |= work(&worker) != NULL;
    for (int64_t i = 0; i < started; i++) {
        void *outcome;
        pthread_join(pool[i], &outcome);
        failed |= outcome != NULL;
    }
    return failed;
}

/* Numbers in a vector: what channels are padded to. */
int64_t certtrain_lanes(void) { return LANES; }
