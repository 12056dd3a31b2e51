"""Questions of chapter 11, bottlenecks and batching."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("11.A", "The weights are stored in 8 bits instead of 16. What becomes of the arithmetic intensity of "
                     "decoding?", (
        Option("It halves.",
               "Halved are the bytes, and those stand below the line of the fraction. The operations stay: two for "
               "each weight."),
        Option("It stays: it belongs to the model.",
               "It belongs to a pass: how many tokens share a weight, and with how many bytes a weight is stored."),
        Option("It doubles.",
               "The same operations for half the bytes. Two operations a byte are still far left of the ridge, so the "
               "step stays bound by memory and takes about half the time.", right=True),
    )),
    Question("11.B", "A new processor has twice the arithmetic and the same bandwidth. What does a single reader "
                     "notice?", (
        Option("Long prompts are read faster; the writing is as fast as before.",
               "Only what stands right of the ridge gains. Each token written waits for the weights, as it did "
               "before.", right=True),
        Option("Everything is twice as fast.",
               "That takes twice the bandwidth as well. Writing uses a small part of the arithmetic that is there "
               "already."),
        Option("The writing is faster, for it takes many passes and a prompt only one.",
               "Each of these many passes waits for its bytes, and they do not come any sooner."),
        Option("Nothing: the ridge moves to the right with the arithmetic.",
               "It does, and short prompts may now be left of it. A long one was far right of it, and gains."),
    )),
    Question("11.C", "Sixteen texts run side by side, and the machine delivers eight times as many tokens per second "
                     "as with one. What does each reader get?", (
        Option("Tokens eight times as fast.",
               "Eight times as many tokens for sixteen readers: for each of them that is half as many."),
        Option("Tokens half as fast as alone.",
               "A step takes twice as long, and each text gets one token from it. That is the price of the throughput; "
               "in return nobody waits for fifteen others to finish.", right=True),
        Option("Tokens as fast as alone: throughput costs nothing.",
               "It would, if sixteen texts gave sixteen times the tokens. With eight times, a step takes twice as "
               "long."),
        Option("A worse text, since the machine divides its attention.",
               "Each row is computed with its own cache and mask, and comes out as it would alone."),
    )),
    Question("11.D", "Why does the padding of prompts stand on the left?", (
        Option("A mask can hide only what stands at the beginning.",
               "A mask can hide any place. What matters is where the text goes on."),
        Option("So that the last place of each row is the last token of its prompt.",
               "There the next token is read off, and after it appended, for all rows at once. On the right there "
               "would be a gap within each shorter text.", right=True),
        Option("So that all texts have the same positions.",
               "They do not: each is counted from its own first token, as if it were alone."),
        Option("Because models are trained like that.",
               "Training mostly packs texts without gaps, or pads on the right. There nothing is appended, so the side "
               "does not matter."),
    )),
    Question("11.E", "The H100 of the riddle waits for launches. Which of these helps it least?", (
        Option("A CUDA graph",
               "It helps most: one request for the whole step."),
        Option("Fusing operations with `torch.compile`",
               "It helps: fewer and larger programs to ask for. The published table shows a factor of three."),
        Option("Several texts at once",
               "It helps the throughput: the same requests serve more texts, and each takes hardly longer."),
        Option("Weights in 8 bits",
               "They are fewer bytes, and the step was not waiting for bytes. Unpacking may even add operations to ask "
               "for.", right=True),
    )),
)
