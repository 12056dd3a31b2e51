/* Attention of the newest token of each text: its queries against all keys, then the values, all read once.

   Queries that share keys and values are computed together. The scores of one are few, so softmax has them all: first
   the largest, then the powers of e and their sum. Keys and values keep their format in memory and become floats in
   registers. */

#include "formats.h"
#include "threads.h"

enum { MOST_NUMBERS = 256, ROWS_AT_ONCE = 4 };

struct attention {
    const void *queries, *keys, *values; /* (texts, heads, several, size); the others (texts, heads, tokens, size) */
    const uint8_t *seen;                 /* (texts, tokens); none: all are seen */
    float *scores, *out; /* (texts, heads, several, tokens rounded up to 16) and (texts, heads, several, size) */
    int64_t format, texts, heads, several, tokens, size; /* size: a multiple of 16 */
    int64_t apart[2][2]; /* numbers between texts and between heads, of the keys and of the values */
};

/* e to the power of x, for x up to 0: 2 to a whole number, which is the exponent of a float, times e to the power of
   what is left, half of ln 2 at most, by its series. */
INLINE floats exponential(floats x) {
    const float whole = 0x1.8p23f; /* added to a number, it leaves the nearest whole one in the last bits */
    floats shifted = multiply_add(x, all(0x1.715476p0f), all(whole)), number = shifted - whole;
    floats rest = multiply_add(number, all(-0x1.62e4p-1f), x);
    rest = multiply_add(number, all(-0x1.7f7d1cp-20f), rest);
    floats sum = all(1.0f / 5040);
    for (int i = 6; i >= 0; i--) {
        const float terms[] = {1, 1, 1.0f / 2, 1.0f / 6, 1.0f / 24, 1.0f / 120, 1.0f / 720};
        sum = multiply_add(sum, rest, all(terms[i]));
    }
    words bits = (words)(sum * (floats)(((words)shifted + 127) << 23));
    return (floats)(bits & ~(words)(x <= -87)); /* smaller ones are zeros */
}

/* Scores -> powers of e, relative to the largest; returns their sum. */
static float powers(float *scores, long tokens, const uint8_t *seen) {
    for (long i = 0; seen && i < tokens; i++) if (!seen[i]) scores[i] = -INFINITY;
    for (long i = tokens; i % 16; i++) scores[i] = -INFINITY;
    floats most = all(-INFINITY), sums[PARTS] = {0};
    for (long i = 0; i < tokens; i += LANES) {
        floats some = LOAD(floats, scores + i);
        words larger = (words)(some > most);
        most = (floats)(((words)some & larger) | ((words)most & ~larger));
    }
    float largest = most[0];
    for (int lane = 1; lane < LANES; lane++) largest = most[lane] > largest ? most[lane] : largest;
    for (long i = 0; i < tokens; i += 16)
        UNROLLED for (int part = 0; part < PARTS; part++) {
            floats some = exponential(LOAD(floats, scores + i + LANES * part) - largest);
            sums[part] += some;
            memcpy(scores + i + LANES * part, &some, sizeof some);
        }
    return total(sums);
}

INLINE void score(const int queries, const struct attention *p, const int format, const void *keys, long at,
                  float scaled[][MOST_NUMBERS], float *scores, long apart) {
    for (long token = 0; token < p->tokens; token++) {
        floats sums[8][PARTS] = {0};
        for (long i = 0; i < p->size; i += 16)
            UNROLLED for (int part = 0; part < PARTS; part++) {
                long place = at + token * p->size + i + LANES * part;
                floats key = load_floats(keys, place, format);
                UNROLLED for (int q = 0; q < queries; q++)
                    sums[q][part] = multiply_add(key, LOAD(floats, scaled[q] + i + LANES * part), sums[q][part]);
            }
        UNROLLED for (int q = 0; q < queries; q++) scores[q * apart + token] = total(sums[q]);
    }
}

/* Add some rows of values, each as much as its weight says. */
INLINE void add_rows(const int queries, const int rows, const struct attention *p, const int format, const void *values,
                     long at, const float *weights, long apart, float *out) {
    for (long i = 0; i < p->size; i += LANES) {
        floats value[ROWS_AT_ONCE];
        UNROLLED for (int row = 0; row < rows; row++) value[row] = load_floats(values, at + row * p->size + i, format);
        UNROLLED for (int q = 0; q < queries; q++) {
            floats sum = LOAD(floats, out + q * p->size + i);
            UNROLLED for (int row = 0; row < rows; row++)
                sum = multiply_add(value[row], all(weights[q * apart + row]), sum);
            memcpy(out + q * p->size + i, &sum, sizeof sum);
        }
    }
}

INLINE void attend(const int queries, long first, const struct attention *p, const int format, long head) {
    long text = head / p->heads, within = head % p->heads, apart = (p->tokens + 15) / 16 * 16;
    long keys = text * p->apart[0][0] + within * p->apart[0][1];
    long values = text * p->apart[1][0] + within * p->apart[1][1];
    float *scores = p->scores + (head * p->several + first) * apart;
    float *out = p->out + (head * p->several + first) * p->size;
    float scaled[8][MOST_NUMBERS];
    floats factor = all(1 / sqrtf(p->size));
    for (int q = 0; q < queries; q++)
        for (long i = 0; i < p->size; i += LANES) {
            floats some = load_floats(p->queries, (head * p->several + first + q) * p->size + i, format) * factor;
            memcpy(scaled[q] + i, &some, sizeof some);
        }
    score(queries, p, format, p->keys, keys, scaled, scores, apart);
    float sums[8];
    for (int q = 0; q < queries; q++)
        sums[q] = powers(scores + q * apart, p->tokens, p->seen ? p->seen + text * p->tokens : NULL);
    memset(out, 0, queries * p->size * sizeof *out);
    long token = 0;
    for (; token + ROWS_AT_ONCE <= p->tokens; token += ROWS_AT_ONCE)
        add_rows(queries, ROWS_AT_ONCE, p, format, p->values, values + token * p->size, scores + token, apart, out);
    for (; token < p->tokens; token++)
        add_rows(queries, 1, p, format, p->values, values + token * p->size, scores + token, apart, out);
    for (int q = 0; q < queries; q++)
        for (long i = 0; i < p->size; i++) out[q * p->size + i] /= sums[q];
}

static void compute(const void *pointer, long first, long end) {
    const struct attention *p = pointer;
    for (long head = first; head < end; head++) /* large models have code of their own for their format */
        if (p->format == BFLOAT16) FOR_SOME_AT_ONCE(p->several, attend, p, BFLOAT16, head)
        else FOR_SOME_AT_ONCE(p->several, attend, p, p->format, head)
}

void attention(start_team team, int threads, const struct attention *given) {
    divide(team, threads, given->texts * given->heads, 1, compute, given);
}
