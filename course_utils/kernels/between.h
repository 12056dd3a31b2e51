/* What a layer computes between its products, for one token, in float32. Sizes are multiples of 16. */

#include "exponential.h"

struct norm {
    const void *weight;
    int64_t format;
    float epsilon;
};

typedef float eight __attribute__((vector_size(32))); /* half a head has a multiple of so many numbers */

/* Divide by the root mean square, then scale. */
static void normalize(struct norm norm, const float *x, long size, float *out) {
    floats squares[PARTS] = {0};
    for (long i = 0; i < size; i += 16)
        for (int part = 0; part < PARTS; part++) {
            floats some = LOAD(floats, x + i + LANES * part);
            squares[part] = multiply_add(some, some, squares[part]);
        }
    float scale = 1 / sqrtf(total(squares) / size + norm.epsilon);
    for (long i = 0; i < size; i += LANES)
        put(out + i, LOAD(floats, x + i) * scale * load_floats(norm.weight, i, norm.format));
}

/* Normalize a head, and rotate each pair (i, i + size / 2) by its angle, where they lie by then. */
static void normalize_and_rotate(struct norm norm, const float *head, const float *cosines, const float *sines,
                                 long size, float *out) {
    normalize(norm, head, size, out);
    for (long i = 0, half = size / 2; i < half; i += 8) {
        eight first = LOAD(eight, out + i), second = LOAD(eight, out + i + half);
        eight rotated = first * LOAD(eight, cosines + i) - second * LOAD(eight, sines + i);
        memcpy(out + i, &rotated, sizeof rotated);
        rotated = second * LOAD(eight, cosines + i) + first * LOAD(eight, sines + i);
        memcpy(out + i + half, &rotated, sizeof rotated);
    }
}

/* SiLU of a gate, times what it lets through: gate / (1 + e to the power of -gate) * up. */
static void let_through(const float *gate, const float *up, long size, float *out) {
    for (long i = 0; i < size; i += LANES) {
        floats some = LOAD(floats, gate + i);
        floats power = exponential((floats)((words)some | 0x80000000)); /* of minus its size, so 1 at most */
        put(out + i, some * chosen((words)(some < 0), power, all(1)) / (power + 1) * LOAD(floats, up + i));
    }
}

static void add(float *x, const float *more, long size) {
    for (long i = 0; i < size; i += LANES) put(x + i, LOAD(floats, x + i) + LOAD(floats, more + i));
}

/* Put numbers behind others of a format, float32 or bfloat16. */
static void keep(const float *numbers, long size, void *among, long place, int64_t format) {
    if (format == FLOAT32) memcpy((float *)among + place, numbers, size * sizeof *numbers);
    else for (long i = 0; i < size; i += LANES) put_bfloat16((uint16_t *)among + place + i, LOAD(floats, numbers + i));
}
