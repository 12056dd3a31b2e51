"""Questions of chapter 12, speculative decoding."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("12.A", "The draft model is broken and guesses wrong every time. The choice is greedy. What comes out of "
                     "the loop?", (
        Option("The target's own text, more slowly than without a draft.",
               "Each pass rejects all that was drafted and still brings the one token that the target would have said. "
               "Drafting and checking are paid for nothing.", right=True),
        Option("A worse text, a mixture of both models.",
               "No token is written that the target would not have chosen itself. A bad draft costs time, not "
               "quality."),
        Option("Nothing: no token is accepted, and the loop does not end.",
               "The row before the first mismatch tells the target's own token, so each pass brings at least one."),
        Option("The target's own text, as fast as without a draft.",
               "Nothing is lost but time: the drafts have to be made, and a pass over five tokens takes longer than "
               "one over a single token."),
    )),
    Question("12.B", "A drafted token is right with probability 0.5, whatever came before. You draft 8 tokens instead "
                     "of 4. How many tokens does a pass bring?", (
        Option("Twice as many.",
               "That would need eight right guesses in a row to be about as frequent as four. They are 16 times as "
               "rare."),
        Option("Half as many again.",
               "The fifth token counts only if four before it were right, which happens in 1 of 16 passes."),
        Option("Hardly more: 2.0 instead of 1.9.",
               "The sum 1 + 1/2 + 1/4 + ... comes near 2 after a few terms. The four further tokens add less than a "
               "tenth, and each of them has to be drafted and checked.", right=True),
        Option("Fewer, because more of them are rejected.",
               "The share of accepted tokens falls, but none of the first four is rejected because of those after "
               "it."),
    )),
    Question("12.C", "The draft has drawn a token with q = 0.4, for which the target has p = 0.1. With which "
                     "probability does it stay?", (
        Option("0.1, as likely as the target finds it.",
               "Then it would come out in 0.4 × 0.1 = 0.04 of all cases, less often than the target says it. That it "
               "was drafted at all is a chance that counts, too."),
        Option("0.25, that is p / q.",
               "It is drafted in 0.4 of all cases, and 0.4 × 0.25 = 0.1: just as often as the target would say it.",
               right=True),
        Option("0, since the draft likes it more than the target does.",
               "Then it would never come out, for what is drawn instead has p above q. The target does say it now and "
               "then."),
        Option("1, since the target may say it.",
               "Then it would come out in 0.4 of all cases, four times as often as the target says it."),
    )),
)
