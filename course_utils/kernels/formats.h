/* Number formats in memory <-> floats in registers. */

#include "lanes.h"

enum { FLOAT32, BFLOAT16, FLOAT16 };

typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

INLINE floats load_floats(const void *numbers, long index, int format) {
    if (format == FLOAT32) return LOAD(floats, (const float *)numbers + index);
    words bits = __builtin_convertvector(LOAD(halves, (const uint16_t *)numbers + index), words);
    if (format == BFLOAT16) return (floats)(bits << 16); /* the upper half of a float32 */
    /* float16 has 5 bits of exponent that count from 15, float32 has 8 that count from 127. */
    floats magnitude = (floats)((bits & 0x7fff) << 13) * 0x1p112f;
    words infinite = (words)(magnitude >= 0x1p16f) & 0x7f800000; /* and what is not a number */
    return (floats)((words)magnitude | infinite | (bits & 0x8000) << 16);
}

/* The nearest numbers of bfloat16, of two the even one. */
INLINE void put_bfloat16(uint16_t *to, floats x) {
    words bits = (words)x, none = (words)(x != x);
    bits = ((bits + 0x7fff + (bits >> 16 & 1)) >> 16 & ~none) | (none & 0x7fc0);
    halves upper = __builtin_convertvector(bits, halves);
    memcpy(to, &upper, sizeof upper);
}

/* Up to 32 floats; the rest of the 32 become zeros. */
INLINE void load_group(const void *numbers, long index, long count, int format, float group[32]) {
    long size = format == FLOAT32 ? 4 : 2;
    char padded[32 * sizeof(float)] = {0};
    memcpy(padded, (const char *)numbers + size * index, size * count);
    for (int i = 0; i < 32; i += LANES) put(group + i, load_floats(padded, i, format));
}
