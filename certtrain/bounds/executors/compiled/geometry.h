/* Which rectangle of a layer rows read. */
#pragma once
#include "task.h"

/* The patch of a starting row, which may leave the layer. */
static Region patch_of(const Task *t, int64_t row) {
    return (Region){t->position[row] / t->columns * t->stride[0] - t->padding[0],
                    t->position[row] % t->columns * t->stride[1] - t->padding[1], t->patch[0], t->patch[1]};
}

/* A patch, cut to the layer. */
static Region first_region(const Task *t, Region patch) {
    Region r = {most(0, patch.y), most(0, patch.x), 0, 0};
    r.h = most(0, least(t->height, patch.y + patch.h) - r.y), r.w = most(0, least(t->width, patch.x + patch.w) - r.x);
    return r;
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
