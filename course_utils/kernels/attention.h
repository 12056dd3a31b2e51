/* What attention.c and tiles.c are told; tiles.c needs no memory for scores. */

#include "threads.h"

#include <stdint.h>

enum { MOST_NUMBERS = 256 }; /* of a head */

struct attention {
    const void *queries;       /* (texts, newest, heads, several, size) */
    const void *keys, *values; /* (texts, heads, tokens, size) */
    const uint8_t *seen;       /* (texts, newest, tokens); none: a token sees those before it, and itself */
    float *scores, *out;       /* (texts, newest, heads, several, tokens rounded up to 16); as the queries */
    int64_t query_format, format; /* format: of keys and values */
    int64_t texts, newest, heads, several, tokens, size; /* newest: tokens that ask; size: a multiple of 16 */
    int64_t apart[2][2]; /* numbers between texts and between heads, of the keys and of the values */
};
