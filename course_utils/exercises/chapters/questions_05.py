"""Questions of chapter 5, the generation loop."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("5.A", "A chat model ends its turns with `<|im_end|>`. Somebody's loop stops only at `<|endoftext|>`. "
                    "What does a user see?", (
        Option("The usual answer: a special token always ends a text.",
               "To the model it is a token like others, and what stops is the loop. This one does not look for it."),
        Option("An empty answer.",
               "The answer comes first, as always. The missing end shows only after it."),
        Option("An error, because `<|im_end|>` is no text.",
               "The tokenizer can decode it, as it decodes any other token."),
        Option("The answer, and then more: often a next question that the model makes up and answers itself.",
               "After the end of a turn, training texts often had the next turn. Without the right end token the model "
               "then writes both parts of the conversation until the limit. (A model whose chats in training were "
               "short may write `<|endoftext|>` instead, at which this loop stops.)", right=True),
    )),
    Question("5.B", "You forget `inference_mode` in your loop. What is different?", (
        Option("The model learns a little from each prompt.",
               "Weights change only when gradients are computed, by backward(), and an optimizer applies them. Nobody "
               "calls either here."),
        Option("The tokens are the same; PyTorch keeps more in memory.",
               "It keeps what gradients would need, as long as something still refers to the logits. The numbers "
               "themselves are the same.", right=True),
        Option("Dropout is switched on, so that the text varies.",
               "That is the switch between train() and eval(). Qwen3 has no dropout, whatever the mode."),
        Option("The text gets worse, because training uses other formulas.",
               "The forward pass computes the same in both cases."),
    )),
    Question("5.C", "A user pastes a document of 2,000 tokens and asks for an answer of one word. The loop has a "
                    "cache. Which number decides how long the user waits?", (
        Option("The time to first token.",
               "Nearly all of the work is the prefill, which reads the document. Of decoding there is next to nothing.",
               right=True),
        Option("The tokens per second of decoding.",
               "One word is a pass or two. A faster decode would hardly be noticed."),
        Option("The peak memory.",
               "It decides whether the request can be served at all, not how long it takes."),
        Option("`max_new_tokens`.",
               "It is a limit. An answer that ends by itself does not become longer because the limit is high."),
    )),
)
