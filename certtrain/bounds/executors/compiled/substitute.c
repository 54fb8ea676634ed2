/* Back-substitution of linear forms through a chain of operations, a few rows at a time, from the first operation to the
 * lower bound: what they are on their way stays near the core. Compiled by build.py for float and for double, each with
 * the widest vectors and with half of that.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "adjoints.h"
#include "bundle_adjoints.h"
#include "bundles.h"

/* GOMP_parallel of the OpenMP library that torch uses. */
typedef void (*Parallel)(void (*run)(void *), void *argument, unsigned threads, unsigned flags);

/* A call ends after a while, finished or not, and goes on from here in the next one: Python, which alone hears signals,
 * has its turn in between. Blocks of rows are the same however often a call ends, and so are all results. */
typedef struct {
    int64_t number, row; /* 1 + a portion that was not finished, 0 for none; and the next row of that, or of a thread */
} Place;

typedef struct {
    int64_t next;   /* portion */
    Place places[]; /* of each thread */
} Progress;

typedef struct {
    const Task *task;
    Progress *progress;
    double deadline; /* seconds on the monotonic clock */
    int64_t thread, threads;
    int64_t since; /* work since the last look at the clock */
    void (*bound)(const Task *t, int64_t member, const int64_t *index, int64_t rows, real *memory);
} Worker;

/* What a thread's part of a call came to. */
enum { FINISHED, NO_MEMORY, UNFINISHED };

/* Additions and multiplications between two looks at the clock, which takes as long as some hundred of them. */
enum { WORK = 1 << 20 };

/* A derivative takes the rows once more, and two products for each of theirs. */
enum { AGAIN_AND_BACK = 3 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Whether the time of this call is over, once a block of rows is done. */
static int is_over(Worker *worker, int64_t rows) {
    worker->since += rows * (worker->task->work + worker->task->space);
    if (worker->since < WORK) return 0;
    worker->since = 0;
    return now() >= worker->deadline;
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

/* Bounds the rows of a portion from one of them on; the row to go on with where time is over, -1 where all are done. */
static int64_t bound_portion(Worker *worker, int64_t member, int64_t first, int64_t end, int64_t *index, real *memory) {
    const Task *t = worker->task;
    const real *wanted = t->wanted.data ? at(&t->wanted, member, 0) : NULL;
    int64_t count = 0;
    for (int64_t row = first; row < end; row++) {
        if (wanted && wanted[row] == 0) {
            t->lower[member * t->rows + row] = 0;
            continue;
        }
        if (count == t->block || (count && worker->bound == substitute_bundle && !share_a_place(t, row, index[0]))) {
            worker->bound(t, member, index, count, memory);
            if (is_over(worker, count)) return row;
            count = 0;
        }
        index[count++] = row;
    }
    if (count) worker->bound(t, member, index, count, memory);
    return count && is_over(worker, count) ? end : -1;
}

static int bound_rows(Worker *worker) {
    const Task *t = worker->task;
    const int64_t portion = portion_of(t, worker->threads), portions = (t->rows + portion - 1) / portion;
    Place *place = &worker->progress->places[worker->thread];
    int64_t index[t->block];
    real *memory = NULL;
    /* Behind the rows, room for what bundles note: at most four int32 for each number of a row. */
    const int64_t numbers = 2 * (t->block + 2) * t->space + 2 * LANES;
    if (posix_memalign((void **)&memory, VECTOR_BYTES, sizeof(real) * numbers)) return NO_MEMORY;
    int state = FINISHED;
    while (state == FINISHED) {
        const int64_t number =
            place->number ? place->number - 1 : __atomic_fetch_add(&worker->progress->next, 1, __ATOMIC_RELAXED);
        const int64_t member = number / portions, nominal = number % portions * portion;
        if (member >= t->members) break;
        const int64_t first = place->number ? place->row : border(worker, nominal);
        const int64_t left = bound_portion(worker, member, first, border(worker, nominal + portion), index, memory);
        *place = left < 0 ? (Place){0, 0} : (Place){number + 1, left};
        if (left >= 0) state = UNFINISHED;
    }
    free(memory);
    return state;
}

/* Images are dealt out to threads in turn: two never add to the derivatives of one image, and sums have an order. */
static int differentiate_rows(Worker *worker) {
    const Task *t = worker->task;
    const int64_t state = t->block * t->space;
    int64_t *next = &worker->progress->places[worker->thread].row;
    real *memory = NULL;
    if (posix_memalign((void **)&memory, VECTOR_BYTES, sizeof(real) * ((t->count + 5) * state + 2 * LANES))) return NO_MEMORY;
    real *tape = memory + 3 * state;
    int over = 0;
    for (int64_t first = *next, end; first < t->rows && !over; first = end) {
        for (end = first + 1; end < t->rows && t->image[end] == t->image[first];) end++;
        if (t->image[first] % worker->threads != worker->thread) continue;
        for (int64_t row = first; row < end && !over; row = *next) {
            const int64_t rows = least(t->block, end - row);
            differentiate(t, worker->thread, row, rows, tape, memory, memory + state, memory + 2 * state);
            *next = row + rows;
            over = is_over(worker, AGAIN_AND_BACK * rows);
        }
    }
    free(memory);
    return over ? UNFINISHED : FINISHED;
}

/* The next rows of a place that a bundle takes, none of which has the derivative zero; the row behind them. */
static int64_t next_bundle(const Task *t, int64_t row, int64_t *index, int64_t *count) {
    for (*count = 0; row < t->rows; row++) {
        if (t->by_lower[row] == 0) continue;
        if (*count == LANES || (*count && !share_a_place(t, row, index[0]))) break;
        index[(*count)++] = row;
    }
    return row;
}

/* The same in bundles. */
static int differentiate_bundles(Worker *worker) {
    const Task *t = worker->task;
    const Division m = divided(t);
    int64_t *next = &worker->progress->places[worker->thread].row, index[LANES], count;
    real *memory = NULL;
    if (posix_memalign((void **)&memory, VECTOR_BYTES, sizeof(real) * ((m.states + m.scratch) * LANES + m.lists))) return NO_MEMORY;
    int over = 0;
    for (int64_t row = *next; row < t->rows && !over; row = *next) {
        *next = next_bundle(t, row, index, &count);
        if (!count || t->image[index[0]] % worker->threads != worker->thread) continue;
        differentiate_bundle(t, worker->thread, index, count, &m, memory);
        over = is_over(worker, AGAIN_AND_BACK * count);
    }
    free(memory);
    return over ? UNFINISHED : FINISHED;
}

/* What the threads of one call share. */
typedef struct {
    Worker worker;
    int (*run)(Worker *worker);
    int64_t started;
    int64_t states[UNFINISHED + 1]; /* which of them there were */
} Team;

static void take_part(void *argument) {
    Team *team = argument;
    /* A pool may hold fewer threads than it was asked for, so parts are taken, not handed out. */
    for (;;) {
        Worker own = team->worker;
        own.thread = __atomic_fetch_add(&team->started, 1, __ATOMIC_RELAXED);
        if (own.thread >= own.threads) return;
        __atomic_store_n(&team->states[team->run(&own)], 1, __ATOMIC_RELAXED);
    }
}

static void *in_own_thread(void *argument) {
    take_part(argument);
    return NULL;
}

/* In torch's own pool where it is known: beside it, ours would compete with threads that wait actively. */
static int64_t in_threads(Worker worker, double seconds, Parallel parallel, int (*run)(Worker *worker)) {
    const int64_t threads = worker.threads;
    worker.deadline = now() + seconds;
    Team team = {.worker = worker, .run = run};
    if (parallel && threads > 1) parallel(take_part, &team, (unsigned)threads, 0);
    else {
        pthread_t pool[threads];
        int64_t made = 0;
        while (made < threads - 1 && pthread_create(&pool[made], NULL, in_own_thread, &team) == 0) made++;
        take_part(&team);
        while (made > 0) pthread_join(pool[--made], NULL);
    }
    return team.states[NO_MEMORY] ? NO_MEMORY : team.states[UNFINISHED] ? UNFINISHED : FINISHED;
}

/* Lower bounds of all rows of all members. Like the others, to be called again with the same progress, which is zeros
 * at first, as long as it returns UNFINISHED after about so many seconds. */
int64_t certtrain_substitute(const Task *task, int64_t threads, Parallel parallel, Progress *progress, double seconds) {
    const Worker worker = {.task = task, .progress = progress, .threads = threads, .bound = substitute};
    return in_threads(worker, seconds, parallel, bound_rows);
}

/* The same in bundles: a block is LANES rows, and neither operands nor layers are padded. */
int64_t certtrain_substitute_bundles(const Task *task, int64_t threads, Parallel parallel, Progress *progress,
                                     double seconds) {
    const Worker worker = {.task = task, .progress = progress, .threads = threads, .bound = substitute_bundle};
    return in_threads(worker, seconds, parallel, bound_rows);
}

/* Derivatives, for one member; rows of an image must follow each other. */
int64_t certtrain_differentiate(const Task *task, int64_t threads, Parallel parallel, Progress *progress, double seconds) {
    const Worker worker = {.task = task, .progress = progress, .threads = threads};
    return in_threads(worker, seconds, parallel, differentiate_rows);
}

/* The same in bundles. Of weights, derivatives are laid out [taps][channels after the step][before it, padded], of thin
 * convolutions [before it][window, padded]; starting forms are in bundles. */
int64_t certtrain_differentiate_bundles(const Task *task, int64_t threads, Parallel parallel, Progress *progress,
                                        double seconds) {
    const Worker worker = {.task = task, .progress = progress, .threads = threads};
    return in_threads(worker, seconds, parallel, differentiate_bundles);
}

/* Numbers in a vector: what channels are padded to, and rows in a bundle. */
int64_t certtrain_lanes(void) { return LANES; }
