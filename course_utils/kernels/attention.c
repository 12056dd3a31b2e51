/* Attention of the few newest tokens of some texts, of one each where `seen` is none: their queries against all keys,
   then the values, all read once.

   Queries that share keys and values are computed together. The scores of one are few, so softmax has them all: first
   the largest, then the powers of e and their sum. Keys and values keep their format in memory and become floats in
   registers. */

#include "attention.h"
#include "exponential.h"

enum { ROWS_AT_ONCE = 4 };

/* Scores -> powers of e, relative to the largest; returns their sum. */
static float powers(float *scores, long tokens, const uint8_t *seen) {
    for (long i = 0; seen && i < tokens; i++) if (!seen[i]) scores[i] = -INFINITY;
    for (long i = tokens; i % 16; i++) scores[i] = -INFINITY;
    floats most = all(-INFINITY), sums[PARTS] = {0};
    for (long i = 0; i < tokens; i += LANES) {
        floats some = LOAD(floats, scores + i);
        most = chosen((words)(some > most), some, most);
    }
    float largest = most[0];
    for (int lane = 1; lane < LANES; lane++) largest = most[lane] > largest ? most[lane] : largest;
    for (long i = 0; i < tokens; i += 16)
        UNROLLED for (int part = 0; part < PARTS; part++) {
            floats some = exponential(LOAD(floats, scores + i + LANES * part) - largest);
            sums[part] += some;
            put(scores + i + LANES * part, some);
        }
    return total(sums);
}

INLINE void score(const int queries, const struct attention *p, const int format, long keys,
                  float scaled[][MOST_NUMBERS], float *const *scores) {
    for (long token = 0; token < p->tokens; token++) {
        floats sums[8][PARTS] = {0};
        for (long i = 0; i < p->size; i += 16)
            UNROLLED for (int part = 0; part < PARTS; part++) {
                floats key = load_floats(p->keys, keys + token * p->size + i + LANES * part, format);
                UNROLLED for (int q = 0; q < queries; q++)
                    sums[q][part] = multiply_add(key, LOAD(floats, scaled[q] + i + LANES * part), sums[q][part]);
            }
        UNROLLED for (int q = 0; q < queries; q++) scores[q][token] = total(sums[q]);
    }
}

/* Add some rows of values, each as much as its weight says. */
INLINE void add_rows(const int queries, const int rows, const struct attention *p, const int format, long values,
                     long token, float *const *weights, float *const *out) {
    for (long i = 0; i < p->size; i += LANES) {
        floats value[ROWS_AT_ONCE];
        UNROLLED for (int row = 0; row < rows; row++)
            value[row] = load_floats(p->values, values + (token + row) * p->size + i, format);
        UNROLLED for (int q = 0; q < queries; q++) {
            floats sum = LOAD(floats, out[q] + i);
            UNROLLED for (int row = 0; row < rows; row++)
                sum = multiply_add(value[row], all(weights[q][token + row]), sum);
            put(out[q] + i, sum);
        }
    }
}

/* Some of the queries, from the first on, that look at one head of a text: all that its newest tokens have for it. */
INLINE void attend(const int queries, long first, const struct attention *p, const int format, long head_of_all) {
    long text = head_of_all / p->heads, head = head_of_all % p->heads, apart = (p->tokens + 15) / 16 * 16;
    long keys = text * p->apart[0][0] + head * p->apart[0][1], values = text * p->apart[1][0] + head * p->apart[1][1];
    float scaled[8][MOST_NUMBERS], *scores[8], *out[8], sums[8];
    floats factor = all(1 / sqrtf(p->size));
    for (int q = 0; q < queries; q++) {
        long token = text * p->newest + (first + q) / p->several;
        long query = (token * p->heads + head) * p->several + (first + q) % p->several;
        scores[q] = p->scores + query * apart, out[q] = p->out + query * p->size;
        for (long i = 0; i < p->size; i += LANES)
            put(scaled[q] + i, load_floats(p->queries, query * p->size + i, p->query_format) * factor);
    }
    score(queries, p, format, keys, scaled, scores);
    for (int q = 0; q < queries; q++) {
        long token = text * p->newest + (first + q) / p->several;
        sums[q] = powers(scores[q], p->tokens, p->seen ? p->seen + token * p->tokens : NULL);
        memset(out[q], 0, p->size * sizeof *out[q]);
    }
    long token = 0;
    for (; token + ROWS_AT_ONCE <= p->tokens; token += ROWS_AT_ONCE)
        add_rows(queries, ROWS_AT_ONCE, p, format, values, token, scores, out);
    for (; token < p->tokens; token++) add_rows(queries, 1, p, format, values, token, scores, out);
    for (int q = 0; q < queries; q++)
        for (long i = 0; i < p->size; i += LANES) put(out[q] + i, LOAD(floats, out[q] + i) / sums[q]);
}

static void compute(const void *pointer, long first, long end) {
    const struct attention *p = pointer;
    long queries = p->newest * p->several;
    for (long head = first; head < end; head++) /* large models have code of their own for their format */
        if (p->format == BFLOAT16) FOR_SOME_AT_ONCE(queries, attend, p, BFLOAT16, head)
        else FOR_SOME_AT_ONCE(queries, attend, p, p->format, head)
}

void attention(start_team team, int threads, const struct attention *given) {
    divide(team, threads, given->texts * given->heads, 1, compute, given);
}
