/* What the products with integers share: vectors are rounded to bytes in groups of 32, each with a step.

   So 32 products are added up as integers, without any error, and only their sum becomes a float. */

#include "formats.h"
#include "matrices.h"
#include "threads.h"

enum { GROUP = 32, ROWS = 32 }; /* rows of a block of the matrix */

struct group {
    int32_t fours[GROUP / 4]; /* bytes, four to a word */
    int32_t start;            /* what sums of integers begin with: minus their sum, times `raised` */
    float step, sum;          /* what a byte stands for, and the sum of all in floats */
};

struct product {
    start_team team;
    int threads;
    const void *x; /* (vectors, inputs) */
    int x_format;
    long vectors, inputs, groups;
    int raised; /* the integers of weights are so much larger than what they stand for */
    struct group *rounded; /* (vectors, groups) */
    const struct matrix *matrices; /* the rows of each are a multiple of ROWS */
    long rows;                     /* of all */
    float *out;                    /* (vectors, rows) */
};

/* Round a group to bytes, -127 to 127. If a number is infinite or none, the step is none, and so is every product. */
INLINE void round_group(const float numbers[GROUP], int raised, struct group *to) {
    uint32_t bits[GROUP], largest = 0; /* without their sign, floats are in the order of their bits */
    memcpy(bits, numbers, sizeof bits);
    for (int i = 0; i < GROUP; i++) largest = (bits[i] & 0x7fffffff) > largest ? bits[i] & 0x7fffffff : largest;
    float limit;
    memcpy(&limit, &largest, 4);
    int usable = limit < INFINITY && limit > 1e-30f; /* smaller ones count as zeros: their reciprocal overflows */
    float steps = usable ? 127 / limit : 0;
    /* This much added and taken off again, a number is rounded to the nearest whole one, and of two to the even. */
    const float whole = 0x1.8p23f;
    int8_t rounded[GROUP] = {0};
    int32_t sum = 0;
    if (usable)
        for (int i = 0; i < GROUP; i++) {
            int32_t number = (int32_t)(numbers[i] * steps + whole - whole);
            rounded[i] = (int8_t)number, sum += number;
        }
    memcpy(to->fours, rounded, GROUP);
    to->start = -raised * sum;
    to->step = usable ? limit / 127 : limit < INFINITY ? 0 : NAN;
    to->sum = to->step * sum;
}

static void round_vectors(const void *pointer, long first, long end) {
    const struct product *p = pointer;
    for (long v = first; v < end; v++)
        for (long g = 0; g < p->groups; g++) {
            float numbers[GROUP];
            long rest = p->inputs - g * GROUP;
            load_group(p->x, v * p->inputs + g * GROUP, rest < GROUP ? rest : GROUP, p->x_format, numbers);
            round_group(numbers, p->raised, &p->rounded[v * p->groups + g]);
        }
}

/* Round the vectors, and let `compute` multiply blocks of the matrix, each of so many bytes. Returns 1 if memory is
   short. Pieces are as large as a core's cache can hold while one vector after the other is multiplied. */
static int multiply_blocks(struct product *p, long block_bytes, void (*compute)(const void *, long, long)) {
    p->groups = (p->inputs + GROUP - 1) / GROUP;
    p->rounded = malloc(p->vectors * p->groups * sizeof *p->rounded + 1);
    if (!p->rounded) return 1;
    divide(p->team, p->threads, p->vectors, 16, round_vectors, p);
    divide(p->team, p->threads, p->rows / ROWS, (1 << 16) / block_bytes + 1, compute, p);
    free(p->rounded);
    return 0;
}
