/* Vectors times a matrix of 8-bit integers, each weight read once for eight of them.

   A weight is integer * scale, with one scale for a row. A vector is rounded to bytes, with a step for 32 numbers. The
   matrix lies row by row. A block of 64 inputs fills sixteen lanes: each adds up four products as integers, without any
   error, and the results of all blocks, times the vector's steps, as floats. */

#include "vectors.h"

enum { BLOCK = 64 };

struct block { /* of a vector */
    int8_t inputs[BLOCK];
    int32_t start[16]; /* see dot_signed */
    float step[16];    /* eight times that of the first 32 numbers, eight times that of the others */
};

struct product {
    const int8_t *weights; /* (rows, inputs) */
    const void *scales;    /* (rows,) */
    int format;
    long rows, inputs, blocks, vectors;
    const struct block *x; /* (vectors, blocks) */
    float *out;            /* (vectors, rows) */
};

/* Add the products of one block of some rows, `apart` bytes from each other, with some vectors. */
INLINE void add_block(const int vectors, const int rows, floats sums[8][4][PARTS], const int8_t *weights, long apart,
                      const struct block *x, long blocks) {
    UNROLLED for (int part = 0; part < PARTS; part++) {
        bytes w[4];
        UNROLLED for (int r = 0; r < rows; r++) w[r] = LOAD(bytes, weights + r * apart + 4 * LANES * part);
        UNROLLED for (int v = 0; v < vectors; v++) {
            const struct block *own = x + v * blocks;
            bytes inputs = LOAD(bytes, own->inputs + 4 * LANES * part);
            ints start = LOAD(ints, own->start + LANES * part);
            floats step = LOAD(floats, own->step + LANES * part);
            UNROLLED for (int r = 0; r < rows; r++)
                sums[v][r][part] =
                    multiply_add(to_floats(dot_signed(w[r], inputs, start)), step, sums[v][r][part]);
        }
    }
}

INLINE void rows_times(const int vectors, const int rows, const struct product *p, long row, long vector) {
    floats sums[8][4][PARTS] = {0};
    const int8_t *weights = p->weights + row * p->inputs;
    const struct block *x = p->x + vector * p->blocks;
    /* Behind the last weight of a row there is nothing that may be read: a last block that is not full is copied. */
    long rest = p->inputs % BLOCK, whole = p->inputs - rest;
    int8_t last[4][BLOCK] = {0};
    if (rest)
        for (int r = 0; r < rows; r++) memcpy(last[r], weights + r * p->inputs + whole, rest);
    for (long i = 0; i < p->inputs; i += BLOCK, x++)
        add_block(vectors, rows, sums, i < whole ? weights + i : last[0], i < whole ? p->inputs : BLOCK, x, p->blocks);
    floats done[8][4][PARTS]; /* in memory */
    UNROLLED for (int v = 0; v < vectors; v++)
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int part = 0; part < PARTS; part++) done[v][r][part] = sums[v][r][part];
    for (int r = 0; r < rows; r++) {
        float scale = load_float(p->scales, row + r, p->format);
        for (int v = 0; v < vectors; v++) p->out[(vector + v) * p->rows + row + r] = scale * total(done[v][r]);
    }
}

/* Several rows share what is read of the vectors, as long as their sums fit into registers. */
INLINE void some_times(const int vectors, long vector, const struct product *p, long first, long end) {
    const int rows = vectors * PARTS <= 4 ? 4 : vectors * PARTS <= 8 ? 2 : 1;
    long row = first;
    for (; row + rows <= end; row += rows) rows_times(vectors, rows, p, row, vector);
    for (; row < end; row++)
        for (int v = 0; v < vectors; v++) rows_times(1, 1, p, row, vector + v);
}

static void compute(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    FOR_SOME_AT_ONCE(p->vectors, some_times, p, first, end)
}

/* x: (vectors, inputs); out: (vectors, rows). Returns 1 if memory is short. */
int multiply(start_team team, int threads, const float *x, long vectors, long inputs, const int8_t *weights,
             const void *scales, int format, long rows, float *out) {
    long blocks = (inputs + BLOCK - 1) / BLOCK;
    struct block *rounded = calloc(vectors * blocks + 1, sizeof *rounded);
    if (!rounded) return 1;
    for (long v = 0; v < vectors; v++)
        for (long i = 0; i < inputs; i += 32) {
            struct block *block = &rounded[v * blocks + i / BLOCK];
            int half = i % BLOCK / 32;
            int8_t *whole = block->inputs + 32 * half;
            float step = round_group(x + v * inputs + i, inputs - i < 32 ? inputs - i : 32, whole);
            for (int lane = 8 * half, j = 0; lane < 8 * half + 8; lane++, j += 4) {
                block->start[lane] = -128 * (whole[j] + whole[j + 1] + whole[j + 2] + whole[j + 3]);
                block->step[lane] = step;
            }
        }
    struct product product = {weights, scales, format, rows, inputs, blocks, vectors, rounded, out};
    divide(team, threads, rows, inputs, vectors, compute, &product);
    free(rounded);
    return 0;
}
