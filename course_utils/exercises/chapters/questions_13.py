"""Questions of chapter 13, training a small model."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("13.A", "A training begins, and the loss of its first step is 2.1, with a vocabulary of 6,656 tokens. "
                     "What do you make of it?", (
        Option("Good luck: these random weights happen to fit the text.",
               "Random weights cannot fit it. They would have to know which words follow which, and nobody told them."),
        Option("The text is easy, so the loss is low from the start.",
               "How easy the text is shows at the end. A model that knows nothing guesses, whatever it reads."),
        Option("Something is wrong: it should be near ln 6656, which is 8.8.",
               "Perhaps the model sees the answers, or the weights are not random but loaded. Look before you go on.",
               right=True),
        Option("The learning rate is too high.",
               "The first loss is measured before the first update, so the rate has had no say in it."),
    )),
    Question("13.B", "The loss on the training text goes on falling, and that on held-out text has been rising for a "
                     "while. What helps most?", (
        Option("More text.",
               "What holds in much text is no accident of a few stories, so learning it helps on new text, too.",
               right=True),
        Option("More steps, until the two losses meet.",
               "They move apart, and go on doing so: with each step the model recites better."),
        Option("A larger model.",
               "It has more room to learn the same text by heart, and does so sooner."),
        Option("Measuring the held-out loss less often.",
               "Then you would see it later. It would rise all the same."),
    )),
    Question("13.C", "A run is stopped after 5 of 12 steps and resumed from weights alone. The means of AdamW begin at "
                     "0 again, and the data at its beginning. What happens?", (
        Option("It fails, since the optimizer does not know the weights.",
               "It works with any weights. That is what makes the mistake hard to notice."),
        Option("It goes on, but ends with other weights than a run without a stop.",
               "The first blocks are seen twice, the rate warms up again, and with new means AdamW makes other steps.",
               right=True),
        Option("It ends with the same weights, because the loss leads there anyway.",
               "There are very many weights with a low loss. Which are found depends on every step of the way."),
    )),
)
