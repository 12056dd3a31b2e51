/* Work is divided among threads, each of which has a range of its own: what it reads then lies side by side. */

/* How OpenMP's library starts a team of threads that all call work(job); PyTorch has that library loaded, and uses the
   same threads. */
typedef void (*start_team)(void (*work)(void *), void *job, unsigned threads, unsigned flags);

enum { MOST_RANGES = 64 };

struct job {
    void (*compute)(const void *product, long first, long end);
    const void *product;
    long step, started;
    int count;
    struct range {
        _Alignas(64) long next; /* in a cache line that no other thread writes to */
        long end;
    } ranges[MOST_RANGES];
};

static void take_pieces(void *pointer) {
    struct job *job = pointer;
    long own = __atomic_fetch_add(&job->started, 1, __ATOMIC_RELAXED);
    for (int i = 0; i < job->count; i++) { /* then help those who are held up by other programs */
        struct range *range = &job->ranges[(own + i) % job->count];
        for (;;) {
            long first = __atomic_fetch_add(&range->next, job->step, __ATOMIC_RELAXED);
            if (first >= range->end) break;
            job->compute(job->product, first, first + job->step < range->end ? first + job->step : range->end);
        }
    }
}

/* Call compute(product, first, end) for pieces of 0 to end, `step` long, with up to so many threads. */
static void divide(start_team team, int threads, long end, long step, void (*compute)(const void *, long, long),
                   const void *product) {
    long pieces = (end + step - 1) / step;
    int count = !team || threads < 1 ? 1 : threads < MOST_RANGES ? threads : MOST_RANGES;
    if (count > pieces) count = pieces > 0 ? pieces : 1;
    struct job job = {compute, product, .step = step, .count = count};
    for (int i = 0; i < count; i++) {
        long last = pieces * (i + 1) / count * step;
        job.ranges[i] = (struct range){pieces * i / count * step, last < end ? last : end};
    }
    if (count > 1) team(take_pieces, &job, threads, 0); /* a team of another size would take time to gather */
    else take_pieces(&job);
}

/* Call function(8, ...) and so on until all vectors have had their turn, so that the compiler makes loops of their own
   for these numbers, whose sums stay in registers. */
#define ONE_NUMBER(number, function, ...) \
    case number: if (number <= AT_ONCE) function(number <= AT_ONCE ? number : 1, vector_, __VA_ARGS__); break;
#define FOR_SOME_AT_ONCE(vectors, function, ...) FOR_UP_TO(AT_ONCE, vectors, function, __VA_ARGS__)
#define FOR_UP_TO(most, vectors, function, ...) \
    for (long vector_ = 0; vector_ < (vectors); vector_ += (most)) \
        switch ((vectors) - vector_ < (most) ? (vectors) - vector_ : (most)) { \
            ONE_NUMBER(1, function, __VA_ARGS__) ONE_NUMBER(2, function, __VA_ARGS__) \
            ONE_NUMBER(3, function, __VA_ARGS__) ONE_NUMBER(4, function, __VA_ARGS__) \
            ONE_NUMBER(5, function, __VA_ARGS__) ONE_NUMBER(6, function, __VA_ARGS__) \
            ONE_NUMBER(7, function, __VA_ARGS__) ONE_NUMBER(8, function, __VA_ARGS__) \
        }
