/* Attention of many tokens at once, as of a prompt, in tiles: no row of scores is ever whole.

   Each lane is a query. A block of queries that share keys and values goes through these tile by tile, and knows of
   each query the largest score so far and, relative to that, the sum of the powers of e and the values they weigh.
   Where a tile has a larger score, both are scaled down (https://arxiv.org/abs/1805.02867). Keys and values become
   floats once for each block, and every number of them then meets all of its queries. */

#include "attention.h"
#include "exponential.h"

enum { KEYS = 32, QUERIES = 96 };

struct block {
    float queries[MOST_NUMBERS][QUERIES]; /* scaled */
    float sums[MOST_NUMBERS][QUERIES];    /* of values, each as much as its weight says */
    float largest[QUERIES], totals[QUERIES], scales[QUERIES]; /* scales: what a tile makes of the sums before it */
    int32_t last[QUERIES];                /* the last token that a query sees */
    float keys[KEYS][MOST_NUMBERS], values[KEYS][MOST_NUMBERS], weights[KEYS][QUERIES]; /* weights: scores at first */
};

/* Scores of some keys of the tile for two vectors of queries. */
INLINE void score(const int keys, long first, struct block *b, long size, long lane) {
    floats sums[8][2] = {0};
    for (long i = 0; i < size; i++) {
        floats queries[2] = {LOAD(floats, b->queries[i] + lane), LOAD(floats, b->queries[i] + lane + LANES)};
        UNROLLED for (int key = 0; key < keys; key++)
            UNROLLED for (int v = 0; v < 2; v++)
                sums[key][v] = multiply_add(all(b->keys[first + key][i]), queries[v], sums[key][v]);
    }
    UNROLLED for (int key = 0; key < keys; key++)
        UNROLLED for (int v = 0; v < 2; v++) put(b->weights[first + key] + lane + v * LANES, sums[key][v]);
}

/* Add what the tile has of some numbers of the values, for two vectors of queries. */
INLINE void add_values(const int numbers, long first, struct block *b, long keys, long lane) {
    floats sums[8][2], scales[2] = {LOAD(floats, b->scales + lane), LOAD(floats, b->scales + lane + LANES)};
    UNROLLED for (int i = 0; i < numbers; i++)
        UNROLLED for (int v = 0; v < 2; v++)
            sums[i][v] = LOAD(floats, b->sums[first + i] + lane + v * LANES) * scales[v];
    for (long key = 0; key < keys; key++) {
        floats weights[2] = {LOAD(floats, b->weights[key] + lane), LOAD(floats, b->weights[key] + lane + LANES)};
        UNROLLED for (int i = 0; i < numbers; i++)
            UNROLLED for (int v = 0; v < 2; v++)
                sums[i][v] = multiply_add(all(b->values[key][first + i]), weights[v], sums[i][v]);
    }
    UNROLLED for (int i = 0; i < numbers; i++)
        UNROLLED for (int v = 0; v < 2; v++) put(b->sums[first + i] + lane + v * LANES, sums[i][v]);
}

/* Scores -> powers of e, relative to the largest of a query so far. */
static void weigh(struct block *b, long first, long keys, long lane) {
    floats before = LOAD(floats, b->largest + lane), largest = before, total = {0};
    ints last = LOAD(ints, b->last + lane);
    for (long key = 0; key < keys; key++) {
        floats scores = LOAD(floats, b->weights[key] + lane);
        scores = chosen((words)(last < (int32_t)(first + key)), all(-INFINITY), scores);
        largest = chosen((words)(scores > largest), scores, largest);
        put(b->weights[key] + lane, scores);
    }
    for (long key = 0; key < keys; key++) {
        floats power = exponential(LOAD(floats, b->weights[key] + lane) - largest);
        total += power;
        put(b->weights[key] + lane, power);
    }
    floats scale = exponential(before - largest);
    put(b->scales + lane, scale);
    put(b->largest + lane, largest);
    put(b->totals + lane, multiply_add(LOAD(floats, b->totals + lane), scale, total));
}

static long last_seen(const struct attention *p, long text, long token) {
    if (!p->seen) return p->tokens - p->newest + token;
    const uint8_t *seen = p->seen + (text * p->newest + token) * p->tokens;
    long last = p->tokens - 1;
    while (last > 0 && !seen[last]) last--;
    return last;
}

/* A block of queries that look at one head of a text, among them the tokens' several for that head. */
static void attend(const struct attention *p, const int format, long text, long head, long first) {
    struct block block, *b = &block;
    long rows = p->newest * p->several - first, most = 0; /* most: of tokens that one of the queries sees */
    rows = rows < QUERIES ? rows : QUERIES;
    long lanes = (rows + 2 * LANES - 1) / (2 * LANES) * (2 * LANES);
    long places[QUERIES]; /* of the numbers of each query */
    float factor = 1 / sqrtf(p->size);
    for (long row = 0; row < lanes; row++) {
        long query = first + (row < rows ? row : 0), token = query / p->several; /* no lane is without a query */
        places[row] = (((text * p->newest + token) * p->heads + head) * p->several + query % p->several) * p->size;
        float numbers[MOST_NUMBERS];
        for (long i = 0; i < p->size; i += LANES)
            put(numbers + i, load_floats(p->queries, places[row] + i, p->query_format));
        for (long i = 0; i < p->size; i++) b->queries[i][row] = numbers[i] * factor, b->sums[i][row] = 0;
        b->last[row] = last_seen(p, text, token);
        b->largest[row] = -1e30f, b->totals[row] = 0; /* finite, for what sees nothing yet */
        most = b->last[row] + 1 > most ? b->last[row] + 1 : most;
    }
    long keys_at = text * p->apart[0][0] + head * p->apart[0][1];
    long values_at = text * p->apart[1][0] + head * p->apart[1][1];
    for (long tile = 0; tile < most; tile += KEYS) {
        long keys = most - tile < KEYS ? most - tile : KEYS;
        for (long key = 0; key < keys; key++)
            for (long i = 0, at = (tile + key) * p->size; i < p->size; i += LANES) {
                put(b->keys[key] + i, load_floats(p->keys, keys_at + at + i, format));
                put(b->values[key] + i, load_floats(p->values, values_at + at + i, format));
            }
        for (long lane = 0; lane < lanes; lane += 2 * LANES) FOR_SOME_AT_ONCE(keys, score, b, p->size, lane)
        for (long row = 0; p->seen && row < rows; row++) {
            const uint8_t *seen = p->seen + (text * p->newest + (first + row) / p->several) * p->tokens + tile;
            for (long key = 0; key < keys; key++) if (!seen[key]) b->weights[key][row] = -INFINITY;
        }
        for (long lane = 0; lane < lanes; lane += LANES) weigh(b, tile, keys, lane);
        for (long lane = 0; lane < lanes; lane += 2 * LANES) FOR_SOME_AT_ONCE(p->size, add_values, b, keys, lane)
    }
    for (long row = 0; row < rows; row++)
        for (long i = 0; i < p->size; i++) p->out[places[row] + i] = b->sums[i][row] / b->totals[row];
}

static void compute(const void *pointer, long first, long end) {
    const struct attention *p = pointer;
    long blocks = (p->newest * p->several + QUERIES - 1) / QUERIES;
    for (long i = first; i < end; i++) {
        long head = i / blocks;
        attend(p, p->format, head / p->heads, head % p->heads, i % blocks * QUERIES);
    }
}

void attention(start_team team, int threads, const struct attention *given) {
    long blocks = (given->newest * given->several + QUERIES - 1) / QUERIES;
    divide(team, threads, given->texts * given->heads * blocks, 1, compute, given);
}
