/* What the kernels share: vectors are rounded to bytes, and rows are divided among threads. */

#include "lanes.h"

/* Round up to 32 numbers to bytes, -127 to 127, in steps of what is returned; the rest of the 32 become zeros.
   If one of them is infinite or not a number, the step is not a number, and so will be every product. */
INLINE float round_group(const float *numbers, long count, int8_t *rounded) {
    float group[32] = {0};
    uint32_t bits[32], largest = 0; /* without their sign, floats are in the order of their bits */
    memcpy(group, numbers, 4 * count);
    memcpy(bits, group, sizeof bits);
    for (int i = 0; i < 32; i++) largest = (bits[i] & 0x7fffffff) > largest ? bits[i] & 0x7fffffff : largest;
    float limit;
    memcpy(&limit, &largest, 4);
    int usable = limit < INFINITY && limit > 1e-30f; /* smaller ones count as zeros: their reciprocal overflows */
    float steps = usable ? 127 / limit : 0;
    /* This much added and taken off again, a number is rounded to the nearest whole one, and of two to the even. */
    const float whole = 0x1.8p23f;
    for (int i = 0; i < 32; i++) rounded[i] = usable ? (int8_t)(int32_t)(group[i] * steps + whole - whole) : 0;
    return usable ? limit / 127 : limit < INFINITY ? 0 : NAN;
}

/* How OpenMP's library starts a team of threads that all call work(job); PyTorch has that library loaded, and uses the
   same threads. */
typedef void (*start_team)(void (*work)(void *), void *job, unsigned threads, unsigned flags);

struct job {
    void (*compute)(const void *product, long first, long end); /* of rows or blocks of rows */
    const void *product;
    long next, end, step;
};

static void take_pieces(void *pointer) {
    struct job *job = pointer;
    for (;;) { /* who is held up by other programs takes fewer */
        long first = __atomic_fetch_add(&job->next, job->step, __ATOMIC_RELAXED);
        if (first >= job->end) return;
        job->compute(job->product, first, first + job->step < job->end ? first + job->step : job->end);
    }
}

/* Compute rows 0 to end, each of so many bytes, with up to so many threads: in pieces that stay in a core's cache while
   one vector after the other is multiplied, and that are not too small to be worth waiting for each other. */
static void divide(start_team team, int threads, long end, long row_bytes, long vectors,
                   void (*compute)(const void *, long, long), const void *product) {
    long step = 8 * ((1 << 13) / (row_bytes * vectors) + 1);
    struct job job = {compute, product, 0, end, step};
    if (team && threads > 1 && end > step) team(take_pieces, &job, threads, 0);
    else take_pieces(&job);
}

/* Call function(8, ...), function(4, ...) and so on until all vectors have had their turn, so that the compiler makes
   loops of their own for these numbers, whose sums stay in registers. */
#if defined(PLAIN)
#define FOR_SOME_AT_ONCE(vectors, function, ...) \
    for (long vector = 0; vector < (vectors); vector++) function(1, vector, __VA_ARGS__);
#else
#define FOR_SOME_AT_ONCE(vectors, function, ...) \
    for (long vector = 0, left = (vectors); left > 0; left = (vectors) - vector) { \
        if (left >= 8) function(8, vector, __VA_ARGS__), vector += 8; \
        else if (left >= 4) function(4, vector, __VA_ARGS__), vector += 4; \
        else if (left >= 2) function(2, vector, __VA_ARGS__), vector += 2; \
        else function(1, vector, __VA_ARGS__), vector += 1; \
    }
#endif
