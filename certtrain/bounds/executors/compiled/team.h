/* Parts of one piece of work, in torch's threads. */
#pragma once
#include <stdint.h>

/* GOMP_parallel of the OpenMP library that torch uses. */
typedef void (*Parallel)(void (*run)(void *), void *argument, unsigned threads, unsigned flags);
typedef void (*Part)(const void *work, int64_t number);

typedef struct {
    const void *work;
    Part part;
    int64_t parts, threads, started;
} Team;

static void take_part(void *argument) {
    Team *team = argument;
    for (;;) {
        const int64_t own = __atomic_fetch_add(&team->started, 1, __ATOMIC_RELAXED);
        if (own >= team->threads) return;
        const int64_t last = team->parts * (own + 1) / team->threads;
        for (int64_t i = team->parts * own / team->threads; i < last; i++) team->part(team->work, i);
    }
}

static void run(const void *work, int64_t parts, int64_t threads, Parallel parallel, Part part) {
    Team team = {work, part, parts, parallel && threads > 1 ? threads : 1, 0};
    if (team.threads > 1) parallel(take_part, &team, (unsigned)team.threads, 0);
    else take_part(&team);
}
