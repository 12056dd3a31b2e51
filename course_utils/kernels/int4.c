/* Vectors times a matrix of 4-bit integers, each weight read once for up to eight of them.

   A weight is (integer - 8) * scale + offset, with a scale and an offset for 32 inputs of a row. For a group of 32
   that leaves a dot product of integers, one product of floats for the scale, and one for the offset.

   The matrix lies in blocks of 32 rows; within one, four inputs of each row are side by side, and a byte holds the
   integer of a row in its lower half, and of the row 16 further in its upper half. A register then holds the
   weights of sixteen rows, each of which adds up in a lane of its own. Scales of a group come before its offsets, 32 of
   each. */

#include "rounded.h"

enum { GROUP_BYTES = ROWS * GROUP / 2 };

INLINE void block_times(const int vectors, long vector, const struct product *p, long row) {
    floats sums[8][2][PARTS] = {0};
    float *out = p->out + vector * p->rows + row;
    const struct matrix *matrix = matrix_of(p->matrices, &row);
    long first = row / ROWS * p->groups, size = matrix->format == FLOAT32 ? 4 : 2;
    for (long g = 0; g < p->groups; g++) {
        const struct group *x = p->rounded + vector * p->groups + g;
        const uint8_t *weights = (const uint8_t *)matrix->weights + (first + g) * GROUP_BYTES;
        long scales = (first + g) * 2 * ROWS;
        const char *fetched = (const char *)matrix->scales + scales * size;
        FETCH(fetched), FETCH(fetched + 64);
        UNROLLED for (int part = 0; part < PARTS; part++) {
            ints dots[8][2];
            UNROLLED for (int v = 0; v < vectors; v++) dots[v][0] = dots[v][1] = (ints){0} + x[v * p->groups].start;
            for (int four = 0; four < GROUP / 4; four++) {
                if (part == 0) FETCH(weights + 64 * four);
                bytes both = LOAD(bytes, weights + 64 * four + 4 * LANES * part);
                bytes low = both & 15, high = both >> 4;
                UNROLLED for (int v = 0; v < vectors; v++) {
                    bytes inputs = (bytes)((ints){0} + x[v * p->groups].fours[four]);
                    dots[v][0] = dot_small(dots[v][0], low, inputs);
                    dots[v][1] = dot_small(dots[v][1], high, inputs);
                }
            }
            UNROLLED for (int half = 0; half < 2; half++) {
                long place = scales + ROWS / 2 * half + LANES * part;
                floats scale = load_floats(matrix->scales, place, matrix->format);
                floats offset = load_floats(matrix->scales, place + ROWS, matrix->format);
                UNROLLED for (int v = 0; v < vectors; v++) {
                    const struct group *own = x + v * p->groups;
                    floats sum = multiply_add(scale, to_floats(dots[v][half]) * own->step, sums[v][half][part]);
                    sums[v][half][part] = multiply_add(offset, all(own->sum), sum);
                }
            }
        }
    }
    UNROLLED for (int v = 0; v < vectors; v++) memcpy(out + v * p->rows, sums[v], 4 * ROWS);
}

static void compute(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    for (long block = first; block < end; block++) FOR_SOME_AT_ONCE(p->vectors, block_times, p, block * ROWS)
}

/* x: (vectors, inputs); out: (vectors, rows of all matrices); the rows of each, and inputs, are multiples of 32.
   Returns 1 if memory is short. */
int multiply(start_team team, int threads, const void *x, int x_format, long vectors, long inputs,
             const struct matrix *matrices, long count, float *out) {
    struct product product = {team, threads, x, x_format, vectors, inputs, .raised = 8, .matrices = matrices,
                              .rows = rows_of_all(matrices, count), .out = out};
    return multiply_blocks(&product, inputs * ROWS / 2, compute);
}
