"""Questions of chapter 10, chat and prefix caching."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("10.A", "You ask a fifth question, and the answer refers to your first one. Where was the first question "
                     "in the meantime?", (
        Option("In the weights: the model has learned it during the conversation.",
               "Nothing is trained here. The weights are the same after any number of conversations."),
        Option("In the list of messages, from which the whole text is written and read anew.",
               "Take it out of the list, and the model answers as if it had never been asked.", right=True),
        Option("In the logits of the last answer.",
               "They are scores for one next token. When that is chosen, nothing of them is left."),
        Option("In the model's attention, which remembers whoever talks to it.",
               "Attention looks at the tokens of the text that is being read, and at nothing else."),
    )),
    Question("10.B", "`KVCache.copy()` shares its tensors and is safe all the same. The fixed cache of chapter 6 "
                     "writes each new token into memory that was reserved for it. May its copies share their memory?", (
        Option("Yes: every copy knows its own length.",
               "It does, but both would write their next token to the same place, and the second would overwrite the "
               "first."),
        Option("Yes, as long as the first user has finished before the second begins.",
               "Then the second overwrites what the first has written after the shared part, and the first cannot go "
               "on later."),
        Option("No: each copy needs memory of its own, since both write in place.",
               "So `StaticKVCache.copy()` copies the numbers. The growing cache may share, because it makes a new "
               "tensor for each step instead of writing into an old one.", right=True),
        Option("No: the keys of one user mean nothing to another.",
               "They do as far as the two texts are the same. Where keys are stored is another matter."),
    )),
    Question("10.C", "A service writes the system prompt, then the time of day, then a manual of 2,000 tokens, then "
                     "the question. What can the next user reuse, a minute later?", (
        Option("The system prompt and the manual; only the time is another one.",
               "The tokens of the manual are the same, but its keys are not: they were computed after another time."),
        Option("The system prompt alone.",
               "The texts part at the time, and nothing after that can be shared. Move the time after the manual, "
               "and all of the manual is reused.", right=True),
        Option("Nothing, since the two prompts are not equal.",
               "They need not be. Their common beginning is reused, and that is the system prompt."),
        Option("The manual, if the time has as many tokens as before.",
               "Then its positions agree, and in layer 0 the keys would. From layer 1 on they depend on what stood "
               "before."),
    )),
    Question("10.D", "The budget of the tree is halved. What do the users notice?", (
        Option("The answers forget how their conversation began.",
               "Whatever is not in the tree is computed again. No text is lost, the messages are kept by the caller."),
        Option("The answers become less exact.",
               "Keys and values are kept whole or not at all, and what is computed again comes out the same."),
        Option("Some prompts are refused when the tree is full.",
               "The tree evicts what is least recently used. What does not fit even then is computed and not kept."),
        Option("Some answers begin later.",
               "Less is found, so more of each prompt has to be computed before the first token. The answers are the "
               "same.", right=True),
    )),
)
