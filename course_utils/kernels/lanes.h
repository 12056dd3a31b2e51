/* Numbers side by side, as a processor's registers hold them: LANES of 32 bits, or four times as many bytes.

   Sums, products and conversions of such vectors are written as those of single numbers: gcc and clang know them
   (https://gcc.gnu.org/onlinedocs/gcc/Vector-Extensions.html). What they have to be told are the instructions for
   a dot product of bytes, one way for each kind of processor. PLAIN is the loop that all others must agree with, bit
   by bit: integers are exact, and each float is computed from the same numbers in the same order. That is why
   multiply_add, which rounds once, is used by name and never left to the compiler. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(AVX512_VNNI)
#include <immintrin.h>
enum { LANES = 16, AT_ONCE = 8 }; /* AT_ONCE: vectors whose sums fit into registers */
#elif defined(AVX_VNNI) || defined(AVX2)
#include <immintrin.h>
enum { LANES = 8, AT_ONCE = 4 };
#elif defined(ARM_DOT)
#include <arm_neon.h>
enum { LANES = 4, AT_ONCE = 8 };
#else /* PLAIN */
enum { LANES = 16, AT_ONCE = 1 };
#endif
enum { PARTS = 16 / LANES }; /* registers for sixteen lanes */

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#if defined(PLAIN)
#define UNROLLED
#elif defined(__clang__)
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 8") /* so that what the loop counts through are registers */
#endif
/* Ask memory for what will be needed in a while: a page ahead, where the processor does not look by itself. */
#define FETCH(pointer) __builtin_prefetch((const char *)(pointer) + 4096)
#define LOAD(type, pointer) ({ type loaded_; memcpy(&loaded_, pointer, sizeof loaded_); loaded_; })

/* dot_small(sum, w, x): to each lane's sum is added the product of four bytes of w, 0 to 15, and of x, -127 to 127.
   dot_signed(sum, w, x): the product of four bytes of w, -128 to 127, and of x. Where a processor multiplies only
   unsigned bytes with signed ones, w is raised by RAISED, and the sum has to begin with -RAISED times that of x. */
#if defined(AVX512_VNNI)

enum { RAISED = 128 };
INLINE ints dot_small(ints sum, bytes w, bytes x) {
    return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
}
INLINE ints dot_signed(ints sum, bytes w, bytes x) { return dot_small(sum, w ^ 128, x); }
INLINE floats multiply_add(floats a, floats b, floats sum) {
    return (floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
}

#elif defined(AVX_VNNI)

enum { RAISED = 128 };
INLINE ints dot_small(ints sum, bytes w, bytes x) {
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)w, (__m256i)x);
}
INLINE ints dot_signed(ints sum, bytes w, bytes x) { return dot_small(sum, w ^ 128, x); }
INLINE floats multiply_add(floats a, floats b, floats sum) {
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
}

#elif defined(AVX2)

enum { RAISED = 0 }; /* signs are moved from w to x instead */
INLINE ints dot_small(ints sum, bytes w, bytes x) {
    __m256i pairs = _mm256_maddubs_epi16((__m256i)w, (__m256i)x); /* at most 2 * 128 * 127: fits into 16 bits */
    return sum + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
INLINE ints dot_signed(ints sum, bytes w, bytes x) {
    bytes moved = (bytes)_mm256_sign_epi8((__m256i)x, (__m256i)w);
    return dot_small(sum, (bytes)_mm256_abs_epi8((__m256i)w), moved);
}
INLINE floats multiply_add(floats a, floats b, floats sum) {
    return (floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
}

#elif defined(ARM_DOT)

enum { RAISED = 0 }; /* this processor multiplies signed bytes as they are */
INLINE ints dot_signed(ints sum, bytes w, bytes x) {
    return (ints)vdotq_s32((int32x4_t)sum, (int8x16_t)w, (int8x16_t)x);
}
INLINE ints dot_small(ints sum, bytes w, bytes x) { return dot_signed(sum, w, x); }
INLINE floats multiply_add(floats a, floats b, floats sum) {
    return (floats)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
}

#else

enum { RAISED = 0 };
static ints dot_signed(ints sum, bytes w, bytes x) {
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 4 * lane; i < 4 * lane + 4; i++) sum[lane] += (int8_t)w[i] * (int8_t)x[i];
    return sum;
}
INLINE ints dot_small(ints sum, bytes w, bytes x) { return dot_signed(sum, w, x); }
static floats multiply_add(floats a, floats b, floats sum) {
    for (int lane = 0; lane < LANES; lane++) sum[lane] = fmaf(a[lane], b[lane], sum[lane]);
    return sum;
}

#endif

INLINE floats turned(floats x, int by) { /* each lane has what another one had, so many further on */
    floats moved;
    words from;
    for (int lane = 0; lane < LANES; lane++) from[lane] = (lane + by) % LANES;
#if defined(__clang__)
    for (int lane = 0; lane < LANES; lane++) moved[lane] = x[from[lane]];
#else
    moved = __builtin_shuffle(x, from);
#endif
    return moved;
}

/* The sum of sixteen lanes: the upper half is added to the lower, until one is left. */
INLINE float total(const floats lanes[PARTS]) {
    floats sum = lanes[0];
    if (PARTS == 2) sum += lanes[PARTS - 1];
    if (PARTS == 4) sum = (sum + lanes[2 % PARTS]) + (lanes[1 % PARTS] + lanes[3 % PARTS]);
    UNROLLED for (int apart = LANES / 2; apart; apart /= 2) sum += turned(sum, apart);
    return sum[0];
}

INLINE floats to_floats(ints x) { return __builtin_convertvector(x, floats); }
INLINE void put(float *to, floats x) { memcpy(to, &x, sizeof x); }
INLINE floats chosen(words which, floats these, floats others) { /* which: all bits of a lane, or none */
    return (floats)(((words)these & which) | ((words)others & ~which));
}
INLINE floats all(float x) { return x - (floats){0}; }
