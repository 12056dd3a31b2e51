"""Questions of chapter 15, past one machine."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("15.A", "Your service has 64 users with long texts, and the GPU is full. You store the weights in 4 bits "
                     "instead of 16. What do you gain?", (
        Option("Four times as many users.",
               "The weights take less than a third of the room. The caches, which take most of it here, are as large "
               "as before."),
        Option("Room for some more caches.",
               "It is more than two thirds of what the weights took. With small models and many users that is little; "
               "shorter contexts, or caches in fewer bits, gain more.", right=True),
        Option("Nothing: the caches are what fills the memory.",
               "They fill most of it, but the weights were not free. What they give back is room for caches."),
    )),
    Question("15.B", "Why are `gate_proj` and `up_proj` divided by outputs and `down_proj` by inputs, and not all "
                     "three in the same way?", (
        Option("So that each machine can go on with what it has, and one sum at the end is enough.",
               "Half of the outputs of the first two is just the half of the inputs that the third one needs.",
               right=True),
        Option("Because `down_proj` has fewer outputs than inputs, so its parts would otherwise be too small to be "
               "worth a machine.",
               "It could be divided by outputs as well. Then every machine would first need all inputs, from all "
               "others."),
        Option("Because the gate multiplies number by number.",
               "That is why each machine can do it with its own numbers. It does not say how to divide the matrix "
               "after it."),
        Option("So that every machine stores equally much.",
               "Half of a matrix is half of it, whichever way it is cut."),
    )),
    Question("15.C", "Two machines train together. On one of them 100 tokens count in this step, on the other 300. "
                     "How do their gradients become that of the whole batch?", (
        Option("By their mean: each machine has seen half of the texts.",
               "Then a token of the first machine would count three times as much as one of the second."),
        Option("By their sum.",
               "Each is already a mean over its own tokens. The sum of two means is too long."),
        Option("By a quarter of the first plus three quarters of the second.",
               "Each part is weighted by its share of the tokens, as in gradient accumulation.", right=True),
    )),
)
