"""Questions of chapter 6, KV caching."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("6.A", "You hold the cache of a text of 1,000 tokens and exchange token 300 for another one. What of the "
                    "cache can you still use?", (
        Option("All but the key and value of token 300.",
               "The tokens after it have looked at the old one. From the second layer on their keys and values were "
               "made of what they saw."),
        Option("All of it: keys and values never change.",
               "They do not change when something follows them. Here something changed before them."),
        Option("The keys and values of the tokens before it.",
               "They never saw token 300. It and all that follow have to be computed again, and `truncate` cuts "
               "the cache to fit.", right=True),
        Option("The keys and values of the tokens after it, since these are the newest.",
               "These have seen the token that is gone. Those before it have not."),
    )),
    Question("6.B", "Somebody keeps the queries of past tokens in the cache too. What is gained?", (
        Option("Nothing: they take memory and are never read.",
               "A query makes the output of its own token, and the output of past tokens is not asked for again.",
               right=True),
        Option("The output of past tokens can be corrected by what came later.",
               "The causal mask forbids just that: later tokens do not reach back."),
        Option("Attention needs no keys for them any more.",
               "The new query is compared with the keys of all past tokens. No query replaces a key."),
        Option("The prefill becomes faster.",
               "The prefill computes the queries of the prompt once and uses them once. Keeping them afterwards comes "
               "too late."),
    )),
    Question("6.C", "Two models differ only in their query heads: one has 32, the other 8. Both have 8 key-value heads "
                    "of the same size. How do their caches compare?", (
        Option("The first has four times as large a cache.",
               "The queries are not kept. What counts is the number of key-value heads."),
        Option("The first has a cache that is a quarter as large, since four queries share a key.",
               "Sharing keeps the cache from growing with the query heads. It does not make it smaller than that of 8 "
               "key-value heads."),
        Option("They are the same for the prompt and differ for new tokens.",
               "A token leaves a key and a value in each layer, whether it came in the prompt or was generated."),
        Option("They are of the same size.",
               "Layers, key-value heads, head size and number format are the same, and the formula knows nothing else.",
               right=True),
    )),
)
