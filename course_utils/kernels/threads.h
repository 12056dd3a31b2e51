/* Work is divided among threads. */

/* How OpenMP's library starts a team of threads that all call work(job); PyTorch has that library loaded, and uses the
   same threads. */
typedef void (*start_team)(void (*work)(void *), void *job, unsigned threads, unsigned flags);

struct job {
    void (*compute)(const void *product, long first, long end);
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

/* Call compute(product, first, end) for pieces of 0 to end, `step` long, with up to so many threads. */
static void divide(start_team team, int threads, long end, long step, void (*compute)(const void *, long, long),
                   const void *product) {
    struct job job = {compute, product, 0, end, step};
    if (team && threads > 1 && end > step) team(take_pieces, &job, threads, 0);
    else take_pieces(&job);
}

/* Call function(8, ...) and so on until all vectors have had their turn, so that the compiler makes loops of their own
   for these numbers, whose sums stay in registers. */
#define ONE_NUMBER(number, function, ...) \
    case number: if (number <= AT_ONCE) function(number <= AT_ONCE ? number : 1, vector_, __VA_ARGS__); break;
#define FOR_SOME_AT_ONCE(vectors, function, ...) \
    for (long vector_ = 0; vector_ < (vectors); vector_ += AT_ONCE) \
        switch ((vectors) - vector_ < AT_ONCE ? (vectors) - vector_ : AT_ONCE) { \
            ONE_NUMBER(1, function, __VA_ARGS__) ONE_NUMBER(2, function, __VA_ARGS__) \
            ONE_NUMBER(3, function, __VA_ARGS__) ONE_NUMBER(4, function, __VA_ARGS__) \
            ONE_NUMBER(5, function, __VA_ARGS__) ONE_NUMBER(6, function, __VA_ARGS__) \
            ONE_NUMBER(7, function, __VA_ARGS__) ONE_NUMBER(8, function, __VA_ARGS__) \
        }
