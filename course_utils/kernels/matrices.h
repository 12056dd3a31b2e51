/* Several matrices, multiplied with the same vectors in one go: while one is read, the next does not have to wait for
   whoever calls. Rows are counted through all of them. */

#include <stdint.h>

struct matrix {
    const void *weights, *scales; /* scales: those that have some */
    int64_t format, rows;         /* format: of the scales */
};

/* The matrix that a row belongs to; `row` becomes its number there. */
static inline const struct matrix *matrix_of(const struct matrix *matrix, long *row) {
    while (*row >= matrix->rows) *row -= matrix++->rows;
    return matrix;
}

static inline long rows_of_all(const struct matrix *matrices, long count) {
    long rows = 0;
    for (long m = 0; m < count; m++) rows += matrices[m].rows;
    return rows;
}
