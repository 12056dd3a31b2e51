"""Questions of chapter 16, below PyTorch."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("16.A", "A row of scores has gone by up to its middle. The largest was 2, the sum 3. Now comes a single "
                     "score of 5. What is the sum then?", (
        Option("3 + exp(5 - 2)", "This score would count with the old largest number. With a row that rises for long "
                                 "enough, exp would overflow."),
        Option("3 + 1", "The 3 was added up of distances to 2. To 5 the same scores are farther away, so each of them "
                        "counts less."),
        Option("3 · exp(2 - 5) + 1", "All that was added up shrinks by one factor, and the new largest score adds "
                                     "exp(0) = 1.", right=True),
        Option("Nobody can tell: the scores are gone", "They are not needed. Each of them would be multiplied by the "
                                                       "same factor, so their sum can be."),
    )),
    Question("16.B", "One token is decoded after 4,096 others. What does attention in tiles save?", (
        Option("Nearly all of the bytes, as in a prompt", "In a prompt there is a row of scores for every token. Here "
                                                          "there is a single one for each head."),
        Option("Little: keys and values have to be read, and beside them one row of scores is small.",
               "Each key has 128 numbers, and a score is one. What helps decoding is a smaller cache: fewer key-value "
               "heads, fewer bits, or several texts that share a beginning.", right=True),
        Option("The reading of keys and values, which stay in the fast memory",
               "At each step all of them are read anew. No processor's fast memory holds the caches of all layers "
               "until the next token."),
    )),
    Question("16.C", "Why does the kernel round the vector, too, to 8 bits?", (
        Option("To read fewer bytes", "The vector is a thousandth of what is read. Its bytes hardly count."),
        Option("So that integers are multiplied with integers, of which a processor does many in one instruction.",
               "A dot product of bytes needs bytes on both sides. Scale and step come in once for 32 products.",
               right=True),
        Option("To undo the rounding of the weights", "It adds an error of its own, though a smaller one: 8 bits "
                                                      "against 4."),
    )),
    Question("16.D", "With 4 bits a weight, decoding gains more than the reading of a prompt. Why?", (
        Option("The prompt is read with the weights that were not quantized.",
               "The same matrices serve both. What differs is how many tokens share each weight."),
        Option("For the tokens of a prompt the arithmetic takes the time, not the reading of the weights.",
               "Each weight that has come serves all of them. Fewer bytes shorten a wait that is hardly there; only "
               "faster arithmetic helps.", right=True),
        Option("The prompt is read once only, so it does not matter.",
               "It matters to the reader: the time to the first token is spent there. But fewer bytes are not what it "
               "is waiting for."),
    )),
)
