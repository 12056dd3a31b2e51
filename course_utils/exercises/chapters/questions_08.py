"""Questions of chapter 8, sampling."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("8.A", "Greedy decoding takes the most probable token at each step. Is its text, as a whole, the most "
                    "probable one?", (
        Option("Yes: a product is largest if each of its factors is.",
               "The factors depend on each other: another first token changes the probabilities of all that follow."),
        Option("Not always: a likely token may lead to where all that can follow is unlikely.",
               "A method called beam search goes on with several beginnings at once for that reason. And the most "
               "probable text is not the best one: it is often short or repeats itself.", right=True),
        Option("There is no such thing: a model gives probabilities to tokens, not to texts.",
               "It gives them to texts, too: multiply the probability of each token, given those before it."),
    )),
    Question("8.B", "At temperature 1 one token is 4 times as probable as another. How many times at temperature "
                    "0.5?", (
        Option("2 times",
               "That is temperature 2, which takes the square root. Heat evens out, cold sharpens."),
        Option("4 times",
               "What stays the same at any temperature is the order. The ratio changes."),
        Option("8 times",
               "The logits are doubled, and so is their difference. But the ratio is e to the difference, so it is "
               "squared and not doubled."),
        Option("16 times",
               "Dividing by 0.5 doubles the difference of the logits, and the ratio becomes 4 to the power 1/0.5 = "
               "2.", right=True),
    )),
    Question("8.C", "The right next token has 97 %. Which setting may still draw one of nineteen others?", (
        Option("top-k 20",
               "It keeps twenty tokens, however sure the model is. In a long text those 3 % will be hit.", right=True),
        Option("top-p 0.9",
               "The first token reaches 0.9 alone, so it is the only one that stays."),
        Option("min-p 0.1",
               "A second token would need a tenth of 97 %, and all the others together have 3 %."),
    )),
    Question("8.D", "A model writes data in JSON, with the same quotation marks and field names in each entry. What "
                    "does a repetition penalty of 1.5 do to it?", (
        Option("Nothing: only words are penalized, not punctuation.",
               "The penalty sees ids. A quotation mark is a token like any other."),
        Option("Nothing: only what comes twice in a row is penalized.",
               "Whatever occurs anywhere in the text or the prompt counts as said, whether once or a hundred times."),
        Option("It lowers every token that has to come again, until a wrong one wins.",
               "A penalty cannot tell a loop from a form that has to be kept. For such texts leave it at "
               "1.", right=True),
        Option("It makes the field names more varied, and the data stay valid.",
               "Varied they may become, and then whoever reads the data no longer finds them."),
    )),
    Question("8.E", "You send a friend your prompt, settings and seed. With the same model, your friend's text parts "
                    "from yours after some words. What can be the reason?", (
        Option("Another device rounds a little differently, and a dart near an edge hits the neighbour.",
               "From there on the two texts are different prompts to the model, so they never meet again.", right=True),
        Option("Sampling is random, so no two runs are alike.",
               "The darts come from a formula, and the seed says where it starts: same seed, same darts."),
        Option("A seed works only once.",
               "Each `Sampler` begins at its seed anew. What goes on where it was left is a generator that is shared, "
               "like PyTorch's global one."),
    )),
)
