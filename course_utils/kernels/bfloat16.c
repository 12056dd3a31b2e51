/* Vectors times a matrix in bfloat16, each weight read once for eight of them; products and sums are float32.

   The matrix lies row by row. A block of 32 inputs fills sixteen lanes of 32 bits, each with an even input in its lower
   half and the odd one behind it in its upper half. bfloat16 is the upper half of a float32: a shift makes the one a
   float, a mask the other. Each lane adds up its even products, and its odd ones. */

#include "formats.h"
#include "matrices.h"
#include "threads.h"

enum { BLOCK = 32, FITTING = 1 << 13 };

struct block { /* of a vector */
    float even[16], odd[16];
};

struct product {
    const void *x; /* (vectors, inputs) */
    int x_format;
    const struct matrix *matrices; /* each (rows, inputs) */
    long rows, inputs, blocks, vectors, at_once; /* rows: of all */
    struct block *apart; /* the same vectors, (vectors, blocks) */
    float *out;          /* (vectors, rows) */
};

/* Several vectors keep the processor busy for longer: then memory is asked further ahead, for the second cache. */
#define FETCH_FAR(pointer) __builtin_prefetch((const char *)(pointer) + (1 << 15), 0, 2)

/* Add the products of one block of some rows, `apart` numbers from each other, with some vectors. */
INLINE void add_block(const int vectors, const int rows, floats sums[8][4][2][PARTS], const uint16_t *weights,
                      long apart, const struct block *x, long blocks) {
    UNROLLED for (int part = 0; part < PARTS; part++) {
        floats even[4], odd[4];
        UNROLLED for (int r = 0; r < rows; r++) {
            if (part == 0 && vectors == 1) FETCH(weights);
            if (part == 0 && vectors > 1) FETCH_FAR(weights + r * apart);
            words both = LOAD(words, weights + r * apart + 2 * LANES * part);
            even[r] = (floats)(both << 16), odd[r] = (floats)(both & 0xffff0000);
        }
        UNROLLED for (int v = 0; v < vectors; v++) {
            floats x_even = LOAD(floats, x[v * blocks].even + LANES * part);
            floats x_odd = LOAD(floats, x[v * blocks].odd + LANES * part);
            UNROLLED for (int r = 0; r < rows; r++) {
                sums[v][r][0][part] = multiply_add(even[r], x_even, sums[v][r][0][part]);
                sums[v][r][1][part] = multiply_add(odd[r], x_odd, sums[v][r][1][part]);
            }
        }
    }
}

INLINE void rows_times(const int vectors, const int rows, const struct product *p, const uint16_t *weights, long row,
                       long vector) {
    floats sums[8][4][2][PARTS] = {0};
    const struct block *x = p->apart + vector * p->blocks;
    /* Behind the last weight of a row there is nothing that may be read: a last block that is not full is copied. */
    long rest = p->inputs % BLOCK, whole = p->inputs - rest;
    uint16_t last[4][BLOCK] = {0};
    if (rest)
        for (int r = 0; r < rows; r++) memcpy(last[r], weights + r * p->inputs + whole, 2 * rest);
    for (long i = 0; i < p->inputs; i += BLOCK, x++)
        add_block(vectors, rows, sums, i < whole ? weights + i : last[0], i < whole ? p->inputs : BLOCK, x, p->blocks);
    UNROLLED for (int r = 0; r < rows; r++)
        UNROLLED for (int v = 0; v < vectors; v++) {
            UNROLLED for (int part = 0; part < PARTS; part++) sums[v][r][0][part] += sums[v][r][1][part];
            p->out[(vector + v) * p->rows + row + r] = total(sums[v][r][0]);
        }
}

/* A single vector takes the matrix from memory row by row. Several share rows that are in a core's cache already, and
   a few rows what is read of the vectors, as long as their sums fit into registers. */
INLINE void some_times(const int vectors, long vector, const struct product *p, const uint16_t *weights, long first,
                       long end) {
    const int rows = vectors == 1 ? 1 : vectors * PARTS <= 2 ? 4 : vectors * PARTS <= 4 ? 2 : 1;
    long row = first;
    for (; row + rows <= end; row += rows, weights += rows * p->inputs)
        rows_times(vectors, rows, p, weights, row, vector);
    for (; row < end; row++, weights += p->inputs) rows_times(vectors, 1, p, weights, row, vector);
}

static void compute(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    for (long stop; first < end; first = stop) { /* matrix by matrix */
        long row = first;
        const struct matrix *matrix = matrix_of(p->matrices, &row);
        const uint16_t *weights = (const uint16_t *)matrix->weights + row * p->inputs;
        stop = first + matrix->rows - row < end ? first + matrix->rows - row : end;
        FOR_UP_TO(p->at_once, p->vectors, some_times, p, weights, first, stop)
    }
}

static void take_apart(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    for (long v = first; v < end; v++)
        for (long b = 0; b < p->blocks; b++) {
            float numbers[BLOCK];
            long rest = p->inputs - b * BLOCK;
            load_group(p->x, v * p->inputs + b * BLOCK, rest < BLOCK ? rest : BLOCK, p->x_format, numbers);
            struct block *to = &p->apart[v * p->blocks + b];
            for (int i = 0; i < BLOCK / 2; i++) to->even[i] = numbers[2 * i], to->odd[i] = numbers[2 * i + 1];
        }
}

/* x: (vectors, inputs); out: (vectors, rows of all matrices). Returns 1 if memory is short. */
int multiply(start_team team, int threads, const void *x, int x_format, long vectors, long inputs,
             const struct matrix *matrices, long count, float *out) {
    long blocks = (inputs + BLOCK - 1) / BLOCK, rows = rows_of_all(matrices, count);
    struct block *apart = aligned_alloc(64, (vectors * blocks * sizeof *apart + 64) / 64 * 64);
    if (!apart) return 1;
    long at_once = FITTING / inputs < 1 ? 1 : FITTING / inputs < AT_ONCE ? FITTING / inputs : AT_ONCE;
    struct product product = {x, x_format, matrices, rows, inputs, blocks, vectors, at_once, apart, out};
    divide(team, threads, vectors, 16, take_apart, &product);
    divide(team, threads, rows, 8 * ((1 << 13) / (2 * inputs) + 1), compute, &product);
    free(apart);
    return 0;
}
