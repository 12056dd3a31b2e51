"""Questions of chapter 14, fine-tuning and LoRA."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("14.A", "All 640 words are used for training, and afterwards the model answers 640 of 640 right. What has "
                     "been shown?", (
        Option("It has learned the rule of the language.",
               "Perhaps. A list of 640 pairs learned by heart would look just the same."),
        Option("It has learned the rule or the list, and nobody can tell which.",
               "Only words that stood in no example tell the two apart. That is what held-out words are for.",
               right=True),
        Option("It has learned the list and not the rule.",
               "Perhaps. But the same result would come from the rule, so this has not been shown."),
    )),
    Question("14.B", "After fine-tuning on Yang alone, `The Chinese word for girl is` is answered with `girl`. Why "
                     "does just this ability suffer, while explanations stay?", (
        Option("Explanations are longer, so they are stored more firmly.",
               "Length does not protect. With examples that look like explanations they would change as well."),
        Option("Words are stored in the layers that were trained, explanations in others.",
               "All layers were trained here, and all of them take part in every answer."),
        Option("The sentence looks like the training examples but for one word.",
               "What lowers the loss on the examples also changes what the model says to prompts that resemble them. "
               "Nothing said that the word `Chinese` matters.", right=True),
        Option("Chinese was never learned well.",
               "Before, every one of the words asked in this way was right."),
    )),
    Question("14.C", "*A* starts at random and *B* at zero. What if both started at random?", (
        Option("Training would begin at a model that has been changed at random.",
               "The adapter would add noise to every layer before the first step. With *B* at zero it adds nothing.",
               right=True),
        Option("Nothing could be learned, since both would point the same way.",
               "Both would get gradients and could be learned. The trouble is where that would begin."),
        Option("It would make no difference, since training corrects it.",
               "It would have to be unlearned first, and until then the model would write worse than it did."),
    )),
    Question("14.D", "You merge the adapter into the model and publish the merged weights. What can whoever gets them "
                     "not do any more?", (
        Option("Take the adapter off again.",
               "*W* and what was added to it are one matrix now. Keep the original, or the adapter's small file.",
               right=True),
        Option("Quantize the model.",
               "A merged model is a plain one, and can be quantized like any other."),
        Option("Train the model further.",
               "It can be fine-tuned like any model, also with a new adapter."),
        Option("Run it without `peft` or this package.",
               "That is what merging is for: nothing needs to know that there was an adapter."),
    )),
)
