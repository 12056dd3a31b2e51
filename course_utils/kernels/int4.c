/* Vectors times a matrix of 4-bit integers, each weight read once for eight of them.

   A weight is integer * scale + offset - 8 * scale, with a scale and an offset for 32 inputs of a row. A vector is
   rounded to bytes, with a step for 32 numbers. So 32 products are added up as integers, without any error, and
   what is left is one product of floats for the scale and one for the offset.

   The matrix lies in blocks of 32 rows; within one, four inputs of each row are side by side, and a byte holds the
   integer of a row in its lower half, and of the row 16 further in its upper half. A register then holds the
   weights of sixteen rows, each of which adds up in a lane of its own. Scales of a group come before its offsets, 32 of
   each. */

#include "vectors.h"

enum { ROWS = 32, GROUP = 32, GROUP_BYTES = ROWS * GROUP / 2 };

struct group { /* of a vector */
    int32_t fours[GROUP / 4]; /* bytes, four to a word */
    int32_t start;            /* -8 times their sum: so much too large are the integers of the weights */
    float step, sum;          /* what a byte stands for, and the sum of all in floats */
};

struct product {
    const uint8_t *weights;
    const void *scales;
    int format;
    long rows, groups, vectors;
    const struct group *x; /* (vectors, groups) */
    float *out;            /* (vectors, rows) */
};

INLINE void block_times(const int vectors, long vector, const struct product *p, long block) {
    floats sums[8][2 * PARTS] = {0};
    for (long g = 0; g < p->groups; g++) {
        const struct group *x = p->x + vector * p->groups + g;
        const uint8_t *weights = p->weights + (block * p->groups + g) * GROUP_BYTES;
        ints dots[8][2 * PARTS];
        UNROLLED for (int v = 0; v < vectors; v++)
            UNROLLED for (int part = 0; part < 2 * PARTS; part++) dots[v][part] = (ints){0} + x[v * p->groups].start;
        for (int four = 0; four < GROUP / 4; four++)
            UNROLLED for (int part = 0; part < PARTS; part++) {
                bytes both = LOAD(bytes, weights + 64 * four + 4 * LANES * part);
                bytes low = both & 15, high = both >> 4;
                UNROLLED for (int v = 0; v < vectors; v++) {
                    bytes inputs = (bytes)((ints){0} + x[v * p->groups].fours[four]);
                    dots[v][part] = dot_small(dots[v][part], low, inputs);
                    dots[v][PARTS + part] = dot_small(dots[v][PARTS + part], high, inputs);
                }
            }
        long scales = (block * p->groups + g) * 2 * ROWS;
        UNROLLED for (int part = 0; part < 2 * PARTS; part++) {
            floats scale = load_floats(p->scales, scales + LANES * part, p->format);
            floats offset = load_floats(p->scales, scales + ROWS + LANES * part, p->format);
            UNROLLED for (int v = 0; v < vectors; v++) {
                const struct group *own = x + v * p->groups;
                floats value = to_floats(dots[v][part]) * own->step;
                sums[v][part] = multiply_add(offset, (floats){0} + own->sum, multiply_add(scale, value, sums[v][part]));
            }
        }
    }
    UNROLLED for (int v = 0; v < vectors; v++) memcpy(p->out + (vector + v) * p->rows + block * ROWS, sums[v], 4 * ROWS);
}

static void compute(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    for (long block = first; block < end; block++) FOR_SOME_AT_ONCE(p->vectors, block_times, p, block)
}

/* x: (vectors, inputs); out: (vectors, rows); rows and inputs are multiples of 32. Returns 1 if memory is short. */
int multiply(start_team team, int threads, const float *x, long vectors, long inputs, const uint8_t *weights,
             const void *scales, int format, long rows, float *out) {
    long groups = inputs / GROUP;
    struct group *rounded = malloc(vectors * groups * sizeof *rounded + 1);
    if (!rounded) return 1;
    for (long i = 0; i < vectors * groups; i++) {
        int8_t whole[GROUP];
        int32_t sum = 0;
        float step = round_group(x + i * GROUP, GROUP, whole);
        for (int j = 0; j < GROUP; j++) sum += whole[j];
        memcpy(rounded[i].fours, whole, GROUP);
        rounded[i].start = -8 * sum, rounded[i].step = step, rounded[i].sum = step * sum;
    }
    struct product product = {weights, scales, format, rows, groups, vectors, rounded, out};
    divide(team, threads, rows / ROWS, groups * GROUP_BYTES, vectors, compute, &product);
    free(rounded);
    return 0;
}
