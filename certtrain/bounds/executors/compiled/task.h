/* What there is to do, as task.py lays it out; numbers in vectors. */
#pragma once
#include <stdint.h>

/* Half of the natural width is asked for where bundles of half as many rows are enough. */
#ifndef VECTOR_BYTES
#ifdef __AVX512F__
#define VECTOR_BYTES 64
#else
#define VECTOR_BYTES 32
#endif
#endif
/* Sums of two vectors each that fit into the registers. */
#ifdef __AVX512F__
#define TILE 12
#else
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

/* Kept in step with steps.py. */
enum { LINES, VALUE, OFFSET, SCALE, CONVOLUTION, THIN_CONVOLUTION, LINEAR, SPREAD, POSITIVE, SHIFT };

typedef struct {
    const real *data;
    int64_t per_member, per_image;
} Operand;

typedef struct {
    real *data; /* shaped like the operand; of one that all images share, one for every thread. A box's may be NULL */
    int64_t per_thread, per_image;
} Gradient;

typedef struct {
    int64_t kind;
    Operand operand[3];
    int64_t height, width, channels; /* of the layer that the rows read after the step */
    int64_t kernel[2], stride[2], padding[2];
    int64_t halo;           /* pixels, after the step */
    Gradient gradient[3];
    const real *transposed; /* weights with the last two axes exchanged; only for gradients */
} Step;

typedef struct {
    const Step *steps;
    int64_t count;
    Operand start, constant; /* rows to begin with [forms][patch] (bundles: see bundle_load), and what was already added to each [forms] */
    int64_t patch[2], channels;             /* of a starting row, channels as stored */
    int64_t height, width, padded, halo;    /* of the layer that it reads */
    int64_t columns, stride[2], padding[2]; /* of the grid of positions; a dense row has one position */
    const int32_t *image, *position, *form; /* of each row */
    Operand wanted;                /* [rows], not zero where a row's bound is; NULL where all are */
    int64_t rows, members;
    int64_t block, space, work;    /* rows at a time, numbers that one of them may take, operations in its products */
    real *lower;                   /* [members][rows] */
    const real *by_lower;          /* derivatives in them [rows]; for gradients, of one member */
    Gradient by_start, by_constant;
} Task;

/* task.py lays both out as numbers of 64 bits. */
_Static_assert(sizeof(Step) == 30 * 8 && sizeof(Task) == 39 * 8, "task.py counts other numbers");

typedef struct {
    int64_t y, x, h, w; /* the rectangle */
} Region;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

static inline const real *at(const Operand *o, int64_t member, int64_t image) {
    return o->data + member * o->per_member + image * o->per_image;
}

static inline real *of(const Gradient *g, int64_t thread, int64_t image) {
    return g->data + thread * g->per_thread + image * g->per_image;
}

static inline int is_product(const Step *s) {
    return s->kind == CONVOLUTION || s->kind == THIN_CONVOLUTION || s->kind == LINEAR;
}

/* Whether rows are others after a step; the rest only adds to their constants. */
static inline int changes(const Step *s) {
    return is_product(s) || s->kind == LINES || s->kind == SCALE || s->kind == SHIFT;
}

/* Channels before a step, as stored. */
static inline int64_t depth_at(const Task *t, int64_t step) { return step ? t->steps[step - 1].channels : t->padded; }

static inline void add_lanes(vec v, double *sums) {
    for (int64_t i = 0; i < LANES; i++) sums[i] += v[i];
}

static inline double total(const double *sums) {
    double sum = 0;
    for (int64_t i = 0; i < LANES; i++) sum += sums[i];
    return sum;
}

/* Vectors that hold so many numbers. */
static inline int64_t vectors(int64_t numbers) { return (numbers + LANES - 1) / LANES; }

/* All bits of the first few numbers of a vector. */
static inline ivec first_of(int64_t numbers) {
#define FOUR(bits) bits, bits, bits, bits
#define ALL(bits) FOUR(bits), FOUR(bits), FOUR(bits), FOUR(bits)
    static const bits masks[] = {ALL(-1), ALL(0)};
    return *(const ivec *)(masks + 16 - numbers);
}

static inline vec absolute(vec v) {
    const bits sign = (bits)((uint64_t)1 << (8 * sizeof(bits) - 1));
    return (vec)((ivec)v & ~sign);
}
