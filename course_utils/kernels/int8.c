/* Vectors times a matrix of 8-bit integers, each weight read once for up to eight of them.

   A weight is integer * scale, with one scale for a row. For a group of 32 inputs that leaves a dot product of integers,
   and the vector's step.

   The matrix lies in blocks of 32 rows, padded with zeros; within one, four inputs of each row are side by side. A
   register then holds the weights of sixteen rows, each of which adds up in a lane of its own. */

#include "rounded.h"

INLINE void block_times(const int vectors, long vector, const struct product *p, long row) {
    floats sums[8][2][PARTS] = {0};
    float *out = p->out + vector * p->rows + row;
    const struct matrix *matrix = matrix_of(p->matrices, &row);
    for (long g = 0; g < p->groups; g++) {
        const struct group *x = p->rounded + vector * p->groups + g;
        const uint8_t *weights = (const uint8_t *)matrix->weights + (row * p->groups + g * ROWS) * GROUP;
        UNROLLED for (int part = 0; part < PARTS; part++) {
            ints dots[8][2];
            UNROLLED for (int v = 0; v < vectors; v++) dots[v][0] = dots[v][1] = (ints){0} + x[v * p->groups].start;
            for (int four = 0; four < GROUP / 4; four++) {
                const uint8_t *place = weights + 4 * ROWS * four + 4 * LANES * part;
                if (part == 0) FETCH(weights + 4 * ROWS * four), FETCH(weights + 4 * ROWS * four + 64);
                bytes low = LOAD(bytes, place), high = LOAD(bytes, place + 2 * ROWS);
                UNROLLED for (int v = 0; v < vectors; v++) {
                    bytes inputs = (bytes)((ints){0} + x[v * p->groups].fours[four]);
                    dots[v][0] = dot_signed(dots[v][0], low, inputs);
                    dots[v][1] = dot_signed(dots[v][1], high, inputs);
                }
            }
            UNROLLED for (int v = 0; v < vectors; v++)
                UNROLLED for (int half = 0; half < 2; half++)
                    sums[v][half][part] =
                        multiply_add(to_floats(dots[v][half]), all(x[v * p->groups].step), sums[v][half][part]);
        }
    }
    UNROLLED for (int v = 0; v < vectors; v++)
        UNROLLED for (int half = 0; half < 2; half++)
            UNROLLED for (int part = 0; part < PARTS; part++) {
                long place = ROWS / 2 * half + LANES * part;
                floats scaled = sums[v][half][part] * load_floats(matrix->scales, row + place, matrix->format);
                memcpy(out + v * p->rows + place, &scaled, sizeof scaled);
            }
}

static void compute(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    for (long block = first; block < end; block++) FOR_SOME_AT_ONCE(p->vectors, block_times, p, block * ROWS)
}

/* x: (vectors, inputs); of each matrix weights: (rows, inputs), padded to multiples of 32, and scales: (rows,);
   out: (vectors, rows of all). Returns 1 if memory is short. */
int multiply(start_team team, int threads, const void *x, int x_format, long vectors, long inputs,
             const struct matrix *matrices, long count, float *out) {
    struct product product = {team, threads, x, x_format, vectors, inputs, .raised = RAISED, .matrices = matrices,
                              .rows = rows_of_all(matrices, count), .out = out};
    return multiply_blocks(&product, inputs * ROWS, compute);
}
