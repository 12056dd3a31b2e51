"""Questions of chapter 4, one step."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("4.A", "A prompt has five tokens. You exchange its last one for another token and run the model again. "
                    "Which of the five rows of logits change?", (
        Option("All five, since the text is another one now.",
               "A token sees itself and what stands before it. The first four see no difference."),
        Option("The first four, since they predicted the token that is gone.",
               "Row 3 does predict token 4, but from what stands before it. What really comes has no influence on it."),
        Option("Only the last row.",
               "It is the only one that has seen the exchanged token. The other four come out as before, and chapter 6 "
               "saves a lot of work by that.", right=True),
        Option("None, until the model is trained on the new text.",
               "Training changes weights. Logits are computed anew from whatever text comes in."),
    )),
    Question("4.B", "You multiply all logits by 2. What becomes of the likeliest token and of its probability?", (
        Option("The same token is likeliest, and its probability grows.",
               "The order stays and all distances double, so the first is further ahead of the others. Chapter 8 calls "
               "this a temperature of one half.", right=True),
        Option("Nothing changes, as when we added 100 to all of them.",
               "Adding moves all scores alike, and softmax sees only their distances. Multiplying changes the "
               "distances."),
        Option("The same token is likeliest, and its probability doubles.",
               "From 99% it could not. Softmax raises e to the scores and divides by the sum, so nothing simply "
               "doubles."),
        Option("Another token may become the likeliest.",
               "Multiplying by a positive number leaves the order alone, and with it the argmax."),
    )),
    Question("4.C", "After \"The capital of Australia is\" a model gives 90% to \" Sydney\". What do the 90% say?", (
        Option("That the statement is most probably true.",
               "It is false: the capital is Canberra. A model learns how texts go on, and many texts are wrong."),
        Option("That the model expects a text that begins so to go on with this token nine times out of ten.",
               "It is a statement about texts like those of its training, not about the world.", right=True),
        Option("That nine of ten texts in the training data had this sentence.",
               "The model does not look anything up and may never have read the sentence. It generalizes from all that "
               "it has read."),
        Option("That the score of this token was 0.9.",
               "The score was some number without a unit. Only softmax over all scores makes the 90% of it."),
    )),
)
