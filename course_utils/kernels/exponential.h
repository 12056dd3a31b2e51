/* Powers of e, several at once. */

#include "formats.h"

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
