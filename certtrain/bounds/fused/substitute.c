/* Back-substitution of linear forms through a chain of operations, a few rows at a time, from the first operation to the
 * lower bound: what they are on their way stays near the core. Compiled by build.py for float and for double, each with
 * the widest vectors and with half of that.
 */
#include <pthread.h>
#include <stdlib.h>

#include "adjoints.h"
#include "bundles.h"

/* GOMP_parallel of the OpenMP library that torch uses. */
typedef void (*Parallel)(void (*run)(void *), void *argument, unsigned threads, unsigned flags);

typedef struct {
    const Task *task;
    int64_t *next;
    int64_t thread, threads;
    void (*bound)(const Task *t, int64_t member, const int64_t *index, int64_t rows, real *memory);
} Worker;

/* One step of one row; `after` receives the row where the step is a product. */
static Region apply(const Step *s, int64_t member, int64_t image, Region r, real *row, int64_t depth, int64_t halo,
                    real *after, double *added) {
    switch (s->kind) {
        case CONVOLUTION: return convolve(s, member, r, row, depth, halo, after);
        case THIN_CONVOLUTION: return convolve_thin(s, member, r, row, depth, halo, after);
        case RELU: relu(s, member, image, r, row, added); break;
        case VALUE:
        case SPREAD: point(s, member, image, r, row, added); break;
        default: channels(s, member, r, row, added);
    }
    return r;
}

/* `index` names the rows, all of one member. */
static void substitute(const Task *t, int64_t member, const int64_t *index, int64_t rows, real *memory) {
    real *a = memory, *b = memory + t->block * t->space;
    Region region[rows];
    double constant[rows];
    double added[rows][LANES];
    for (int64_t k = 0; k < rows; k++) {
        region[k] = load(t, member, index[k], a + k * t->space);
        constant[k] = *(at(&t->constant, member, t->image[index[k]]) + t->form[index[k]]);
        memset(added[k], 0, sizeof(added[k]));
    }
    int64_t depth = t->padded, halo = t->halo;
    for (int64_t i = 0; i < t->count; i++) {
        const Step *s = &t->steps[i];
        if (s->kind == LINEAR) multiply(s, member, rows, region, a, depth, b, t->space);
        for (int64_t k = 0; k < rows && s->kind != LINEAR; k++)
            region[k] = apply(s, member, t->image[index[k]], region[k], a + k * t->space, depth, halo, b + k * t->space,
                              added[k]);
        if (is_product(s)) {
            real *swap = a;
            a = b, b = swap;
        }
        depth = s->channels, halo = s->halo;
    }
    for (int64_t k = 0; k < rows; k++) t->lower[member * t->rows + index[k]] = (real)(constant[k] + total(added[k]));
}

/* Portions are taken as threads become free; rows that nobody wants are left out, their bound is zero. */
enum { PORTION = 256 };

static int64_t portion_of(const Task *t, int64_t threads) {
    const int64_t portion = most(least(PORTION, t->rows / (4 * threads)), t->block);
    return portion / t->block * t->block;
}

static int share_a_place(const Task *t, int64_t row, int64_t other) {
    return t->image[row] == t->image[other] && t->position[row] == t->position[other];
}

/* Where a portion that would begin with this row begins: with a place, where one begins soon. */
static int64_t border(const Worker *worker, int64_t row) {
    const Task *t = worker->task;
    if (worker->bound != substitute_bundle || row <= 0) return least(row, t->rows);
    for (int64_t r = row; r < row + t->block; r++)
        if (r >= t->rows || !share_a_place(t, r, r - 1)) return least(r, t->rows);
    return row;
}

static void *bound_rows(void *argument) {
    const Worker *worker = argument;
    const Task *t = worker->task;
    const int64_t portion = portion_of(t, worker->threads), portions = (t->rows + portion - 1) / portion;
    int64_t index[t->block];
    real *memory = NULL;
    /* Behind the rows, room for what bundles note: at most two int32 for each number of a row. */
    const int64_t numbers = 2 * (t->block + 1) * t->space + 2 * LANES;
    if (posix_memalign((void **)&memory, VECTOR_BYTES, sizeof(real) * numbers)) return argument;
    for (;;) {
        const int64_t next = __atomic_fetch_add(worker->next, 1, __ATOMIC_RELAXED), member = next / portions;
        if (member >= t->members) break;
        const int64_t nominal = next % portions * portion;
        const int64_t first = border(worker, nominal), end = border(worker, nominal + portion);
        const real *wanted = t->wanted.data ? at(&t->wanted, member, 0) : NULL;
        int64_t count = 0;
        for (int64_t row = first; row < end; row++) {
            if (wanted && wanted[row] == 0) {
                t->lower[member * t->rows + row] = 0;
                continue;
            }
            if (count == t->block || (count && worker->bound == substitute_bundle && !share_a_place(t, row, index[0]))) {
                worker->bound(t, member, index, count, memory);
                count = 0;
            }
            index[count++] = row;
        }
        if (count) worker->bound(t, member, index, count, memory);
    }
    free(memory);
    return NULL;
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
        const int64_t depth = i ? s[-1].channels : t->padded, halo = i ? s[-1].halo : t->halo;
        const int changes = is_product(s) || s->kind == RELU || s->kind == SCALE;
        real *row = tape + kept[i] * state, *after = row + state;
        kept[i + 1] = kept[i] + changes;
        memcpy(region[i + 1], region[i], sizeof(region[i]));
        if (s->kind == LINEAR) multiply(s, 0, rows, region[i + 1], row, depth, after, t->space);
        else if (changes)
            for (int64_t k = 0; k < rows; k++) {
                if (!is_product(s)) memcpy(after + k * t->space, row + k * t->space, sizeof(real) * t->space);
                region[i + 1][k] = apply(s, 0, image, region[i][k], (is_product(s) ? row : after) + k * t->space, depth,
                                         halo, after + k * t->space, ignored);
            }
    }
    memset(d, 0, sizeof(real) * state);
    for (int64_t i = t->count - 1; i >= 0; i--) {
        const Step *s = &t->steps[i];
        const int64_t depth = i ? s[-1].channels : t->padded, halo = i ? s[-1].halo : t->halo;
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
                case RELU: relu_adjoint(s, image, r, row, by_lower, own); break;
                case VALUE:
                case SPREAD: point_adjoint(s, image, r, row, by_lower, own); break;
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

/* Images are dealt out to threads in turn: two never add to the derivatives of one image, and sums have an order. */
static void *differentiate_rows(void *argument) {
    const Worker *worker = argument;
    const Task *t = worker->task;
    const int64_t state = t->block * t->space;
    real *memory = NULL;
    if (posix_memalign((void **)&memory, VECTOR_BYTES, sizeof(real) * ((t->count + 5) * state + 2 * LANES))) return argument;
    real *tape = memory + 3 * state;
    for (int64_t first = 0, end; first < t->rows; first = end) {
        for (end = first + 1; end < t->rows && t->image[end] == t->image[first];) end++;
        if (t->image[first] % worker->threads != worker->thread) continue;
        for (int64_t row = first; row < end; row += t->block)
            differentiate(t, worker->thread, row, least(t->block, end - row), tape, memory, memory + state,
                          memory + 2 * state);
    }
    free(memory);
    return NULL;
}

/* What the threads of one call share. */
typedef struct {
    Worker worker;
    void *(*run)(void *);
    int64_t started, failed;
} Team;

static void take_part(void *argument) {
    Team *team = argument;
    /* A pool may hold fewer threads than it was asked for, so parts are taken, not handed out. */
    for (;;) {
        Worker own = team->worker;
        own.thread = __atomic_fetch_add(&team->started, 1, __ATOMIC_RELAXED);
        if (own.thread >= own.threads) return;
        if (team->run(&own)) __atomic_store_n(&team->failed, 1, __ATOMIC_RELAXED);
    }
}

static void *in_own_thread(void *argument) {
    take_part(argument);
    return NULL;
}

/* In torch's own pool where it is known: beside it, ours would compete with threads that wait actively. */
static int64_t in_threads(Worker worker, int64_t threads, Parallel parallel, void *(*run)(void *)) {
    int64_t next = 0;
    worker.next = &next, worker.threads = threads;
    Team team = {worker, run, 0, 0};
    if (parallel && threads > 1) {
        parallel(take_part, &team, (unsigned)threads, 0);
        return team.failed;
    }
    pthread_t pool[threads];
    int64_t made = 0;
    while (made < threads - 1 && pthread_create(&pool[made], NULL, in_own_thread, &team) == 0) made++;
    take_part(&team);
    while (made > 0) pthread_join(pool[--made], NULL);
    return team.failed;
}

/* Lower bounds of all rows of all members; 0, or 1 where there was no memory. */
int64_t certtrain_substitute(const Task *task, int64_t threads, Parallel parallel) {
    return in_threads((Worker){.task = task, .bound = substitute}, threads, parallel, bound_rows);
}

/* The same in bundles: a block is LANES rows, and neither operands nor layers are padded. */
int64_t certtrain_substitute_bundles(const Task *task, int64_t threads, Parallel parallel) {
    return in_threads((Worker){.task = task, .bound = substitute_bundle}, threads, parallel, bound_rows);
}

/* Derivatives, for one member; rows of an image must follow each other. */
int64_t certtrain_differentiate(const Task *task, int64_t threads, Parallel parallel) {
    return in_threads((Worker){.task = task}, threads, parallel, differentiate_rows);
}

/* Numbers in a vector: what channels are padded to, and rows in a bundle. */
int64_t certtrain_lanes(void) { return LANES; }
