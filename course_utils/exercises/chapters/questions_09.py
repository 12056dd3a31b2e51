"""Questions of chapter 9, inside the transformer."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("9.A", "Somebody rotates the keys and forgets to rotate the queries. What do the scores then know of "
                    "the order of the tokens?", (
        Option("The distance of the two tokens, as before.",
               "For that both have to be turned: only then does their common part cancel and leave the difference of "
               "the two positions."),
        Option("Nothing, as in a bag of tokens.",
               "The keys are still turned by their own position, so a token at another place gets another score."),
        Option("The position of the key, wherever the query stands.",
               "The dot product of `q` and a key turned by its position depends on that position alone. The same two "
               "words next to each other would fit well in one part of the text and badly in another.", right=True),
        Option("The position of the query, wherever the key stands.",
               "The query is the one that is not turned: it is the same vector at every place."),
    )),
    Question("9.B", "BERT, an older model that only reads, has no causal mask: each token sees those after it, too. "
                    "Why is a KV cache of no use to it when a token is appended?", (
        Option("Without a mask the weights of a row do not add up to one.",
               "The softmax makes each row add up to one, with a mask or without."),
        Option("The new token changes what all earlier tokens take along, and so their keys and values from layer 1 "
               "on.",
               "Each earlier token now looks at the new one as well, so its vector after layer 0 is another one, and "
               "what was kept of it is out of date.", right=True),
        Option("The keys of layer 0 change, and all others with them.",
               "Those are made of each token's own embedding and position, so they stay. It is in the layers above "
               "that the earlier tokens change."),
        Option("Its queries would have to be kept as well.",
               "A query is used for its own row and then never again, with a mask or without."),
    )),
    Question("9.C", "A model with 32 heads of queries is changed from 32 heads of keys and values to 8. What becomes a "
                    "quarter of what it was?", (
        Option("The cache.",
               "It holds keys and values and nothing else, so it follows their number of heads. So does what each step "
               "reads of it.", right=True),
        Option("The number of scores that each layer computes.",
               "Each of the 32 heads of queries still has a score for each key that it can see. Four of them see the "
               "same keys."),
        Option("The parameters of the model.",
               "Only `k_proj` and `v_proj` shrink. The MLP, `q_proj`, `o_proj` and the embedding stay as they are."),
        Option("The time of each step.",
               "A step also reads all the weights. At a short context they are nearly all that it reads, and the cache "
               "is a small part."),
    )),
    Question("9.D", "You silence one head, and the probability of the answer stays where it was. What do you know?", (
        Option("The head does nothing.",
               "It may do much in other texts. Even here another head may have taken over."),
        Option("The head's map shows no clear pattern.",
               "Silencing says nothing about where a head looks. A head with a clear map can be one of two that do the "
               "same."),
        Option("The head can be removed to make the model faster.",
               "One text is no evidence for all the others."),
        Option("Here the model can do without this head alone.",
               "That is all. Whether another stands in for it shows only when both are silenced.", right=True),
    )),
)
