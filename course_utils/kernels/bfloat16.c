/* Vectors times a matrix in bfloat16, each weight read once for eight of them; products and sums are float32.

   The matrix lies row by row. A block of 32 inputs fills sixteen lanes of 32 bits, each with an even input in its lower
   half and the odd one behind it in its upper half. bfloat16 is the upper half of a float32: a shift makes the one a
   float, a mask the other. Each lane adds up its even and odd products in turn. */

#include "vectors.h"

enum { BLOCK = 32 };

struct block { /* of a vector */
    float even[16], odd[16];
};

struct product {
    const uint16_t *weights; /* (rows, inputs) */
    long rows, inputs, blocks, vectors;
    const struct block *x; /* (vectors, blocks) */
    float *out;            /* (vectors, rows) */
};

/* Add the products of one block of some rows, `apart` numbers from each other, with some vectors. */
INLINE void add_block(const int vectors, const int rows, floats sums[8][8][PARTS], const uint16_t *weights, long apart,
                      const struct block *x, long blocks) {
    UNROLLED for (int part = 0; part < PARTS; part++) {
        floats even[8], odd[8];
        UNROLLED for (int r = 0; r < rows; r++) {
            words both = LOAD(words, weights + r * apart + 2 * LANES * part);
            even[r] = (floats)(both << 16), odd[r] = (floats)(both & 0xffff0000);
        }
        UNROLLED for (int v = 0; v < vectors; v++) {
            floats x_even = LOAD(floats, x[v * blocks].even + LANES * part);
            floats x_odd = LOAD(floats, x[v * blocks].odd + LANES * part);
            UNROLLED for (int r = 0; r < rows; r++) {
                floats sum = multiply_add(even[r], x_even, sums[v][r][part]);
                sums[v][r][part] = multiply_add(odd[r], x_odd, sum);
            }
        }
    }
}

INLINE void rows_times(const int vectors, const int rows, const struct product *p, long row, long vector) {
    floats sums[8][8][PARTS] = {0};
    const uint16_t *weights = p->weights + row * p->inputs;
    const struct block *x = p->x + vector * p->blocks;
    /* Behind the last weight of a row there is nothing that may be read: a last block that is not full is copied. */
    long rest = p->inputs % BLOCK, whole = p->inputs - rest;
    uint16_t last[8][BLOCK] = {0};
    if (rest)
        for (int r = 0; r < rows; r++) memcpy(last[r], weights + r * p->inputs + whole, 2 * rest);
    for (long i = 0; i < p->inputs; i += BLOCK, x++)
        add_block(vectors, rows, sums, i < whole ? weights + i : last[0], i < whole ? p->inputs : BLOCK, x, p->blocks);
    floats done[8][8][PARTS]; /* in memory */
    UNROLLED for (int v = 0; v < vectors; v++)
        UNROLLED for (int r = 0; r < rows; r++)
            UNROLLED for (int part = 0; part < PARTS; part++) done[v][r][part] = sums[v][r][part];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) p->out[(vector + v) * p->rows + row + r] = total(done[v][r]);
}

/* Several rows at once: a processor begins the next product before the last is done, if it goes into another sum. */
INLINE void some_times(const int vectors, long vector, const struct product *p, long first, long end) {
    const int rows = vectors * PARTS <= 1 ? 8 : vectors * PARTS <= 4 ? 4 : vectors * PARTS <= 8 ? 2 : 1;
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
int multiply(start_team team, int threads, const float *x, long vectors, long inputs, const uint16_t *weights,
             long rows, float *out) {
    long blocks = (inputs + BLOCK - 1) / BLOCK;
    struct block *apart = calloc(vectors * blocks + 1, sizeof *apart);
    if (!apart) return 1;
    for (long v = 0; v < vectors; v++)
        for (long i = 0; i < inputs; i++) {
            struct block *block = &apart[v * blocks + i / BLOCK];
            (i % 2 ? block->odd : block->even)[i % BLOCK / 2] = x[v * inputs + i];
        }
    struct product product = {weights, rows, inputs, blocks, vectors, apart, out};
    divide(team, threads, rows, 2 * inputs, vectors, compute, &product);
    free(apart);
    return 0;
}
