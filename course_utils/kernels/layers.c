/* All layers of a model for a few new tokens, in one call, where Python and PyTorch would start some hundred programs.

   Products and attention are those of the other files, handed over as functions. What lies between them is little, and
   one thread computes it. */

#include "attention.h"
#include "between.h"
#include "matrices.h"

struct linear { /* matrices that meet the same vectors */
    int (*multiply)(start_team, int threads, const void *x, int x_format, long vectors, long inputs,
                    const struct matrix *, long count, float *out);
    const struct matrix *matrices;
    int64_t count, inputs;
};

struct layer {
    struct linear projections, output, gate_and_up, down; /* projections: to queries, keys and values */
    const void *input_norm, *query_norm, *key_norm, *mlp_norm;
};

struct cache { /* of one layer: each (texts, heads, room, size) */
    void *keys, *values;
};

struct step {
    start_team team;
    int64_t threads;
    void (*attend)(start_team, int threads, const struct attention *);
    const struct layer *layers;
    const struct cache *caches;
    const void *last_norm; /* behind all layers */
    int64_t format, count;             /* format: of norms and caches; count: of layers */
    int64_t texts, newest, past, room; /* newest: tokens of each text that are new; past: those that are not */
    int64_t width, inner, query_heads, heads, size; /* inner: of the MLP; heads: of keys and values; size: of a head */
    double epsilon;
    const float *cosines, *sines; /* (texts, newest, size) */
    const uint8_t *seen;          /* (texts, newest, past + newest); none: all are seen */
    float *x;                     /* (texts, newest, width): embeddings go in, hidden states come out */
};

struct scratch { /* for all new tokens, written over by each layer */
    float *normed, *products, *queries, *attended, *scores, *inner;
};

static long rows_of(const struct linear *p) { return rows_of_all(p->matrices, p->count); }
static long tokens_of(const struct step *p) { return p->texts * p->newest; }
static struct norm norm_of(const struct step *p, const void *weight) {
    return (struct norm){weight, p->format, p->epsilon};
}

static void normalize_all(const struct step *p, const void *weight, float *out) {
    for (long t = 0; t < tokens_of(p); t++)
        normalize(norm_of(p, weight), p->x + t * p->width, p->width, out + t * p->width);
}

static int multiply(const struct step *p, const struct linear *linear, const float *x, float *out) {
    return linear->multiply(p->team, p->threads, x, FLOAT32, tokens_of(p), linear->inputs, linear->matrices,
                            linear->count, out);
}

/* Multiply, and add the product to the residual stream. */
static int add_product(const struct step *p, const struct linear *linear, const float *x, float *products) {
    if (multiply(p, linear, x, products)) return 1;
    for (long t = 0; t < tokens_of(p); t++) add(p->x + t * p->width, products + t * rows_of(linear), p->width);
    return 0;
}

static int attention_part(const struct step *p, const struct layer *layer, const struct cache *cache,
                          struct scratch s) {
    normalize_all(p, layer->input_norm, s.normed);
    if (multiply(p, &layer->projections, s.normed, s.products)) return 1;
    const struct matrix *matrices = layer->projections.matrices;
    for (long t = 0; t < tokens_of(p); t++) {
        const float *query = s.products + t * rows_of(&layer->projections);
        const float *key = query + matrices[0].rows, *value = key + matrices[1].rows;
        const float *cosines = p->cosines + t * p->size, *sines = p->sines + t * p->size;
        for (long at = 0, end = p->query_heads * p->size; at < end; at += p->size)
            normalize_and_rotate(norm_of(p, layer->query_norm), query + at, cosines, sines, p->size,
                                 s.queries + t * end + at);
        for (long h = 0; h < p->heads; h++) {
            long text = t / p->newest, slot = p->past + t % p->newest;
            long place = ((text * p->heads + h) * p->room + slot) * p->size;
            float *rotated = s.attended; /* nothing is attended to yet */
            normalize_and_rotate(norm_of(p, layer->key_norm), key + h * p->size, cosines, sines, p->size, rotated);
            keep(rotated, p->size, cache->keys, place, p->format);
            keep(value + h * p->size, p->size, cache->values, place, p->format);
        }
    }
    long head = p->room * p->size, text = p->heads * head; /* numbers of each in a cache */
    struct attention attention = {
        s.queries, cache->keys, cache->values, p->seen, s.scores, s.attended, FLOAT32, p->format, p->texts,
        p->newest, p->heads, p->query_heads / p->heads, p->past + p->newest, p->size, {{text, head}, {text, head}}};
    p->attend(p->team, p->threads, &attention);
    return add_product(p, &layer->output, s.attended, s.products);
}

static int mlp_part(const struct step *p, const struct layer *layer, struct scratch s) {
    normalize_all(p, layer->mlp_norm, s.normed);
    if (multiply(p, &layer->gate_and_up, s.normed, s.products)) return 1;
    for (long t = 0; t < tokens_of(p); t++) {
        const float *gate = s.products + t * rows_of(&layer->gate_and_up);
        let_through(gate, gate + layer->gate_and_up.matrices[0].rows, p->inner, s.inner + t * p->inner);
    }
    return add_product(p, &layer->down, s.inner, s.products);
}

/* Returns 1 if memory is short. */
int run_layers(const struct step *p) {
    long tokens = tokens_of(p), queries = p->query_heads * p->size, rows = 0;
    long scores = p->query_heads * ((p->past + p->newest + 15) / 16 * 16);
    for (long i = 0; i < 4 * p->count; i++) {
        long some = rows_of(&p->layers[i / 4].projections + i % 4);
        rows = some > rows ? some : rows;
    }
    struct scratch s = {
        .normed = malloc(tokens * (p->width + rows + 2 * queries + scores + p->inner) * sizeof(float))};
    if (!s.normed) return 1;
    s.products = s.normed + tokens * p->width, s.queries = s.products + tokens * rows;
    s.attended = s.queries + tokens * queries, s.scores = s.attended + tokens * queries;
    s.inner = s.scores + tokens * scores;
    int failed = 0;
    for (long l = 0; l < p->count && !failed; l++)
        failed = attention_part(p, p->layers + l, p->caches + l, s) || mlp_part(p, p->layers + l, s);
    if (!failed) normalize_all(p, p->last_norm, p->x);
    free(s.normed);
    return failed;
}
