"""Quick questions of chapter 2: bytes, unseen scripts, spaces, and tokens that nobody may type."""

from __future__ import annotations

from course_utils.exercises.question import Option, Question

QUESTIONS = (
    Question("2.A", "Why does a tokenizer start from 256 bytes and not from all characters?", (
        Option("A byte is a character, so it comes to the same.",
               "Only in plain English text. A Chinese character takes three bytes, most emoji four."),
        Option("There are more than 150,000 characters, and any text can be written with 256 bytes.",
               "Starting from characters, the vocabulary would be full of rare ones, and the next new script would "
               "still be missing.", right=True),
        Option("The model computes faster with bytes.",
               "The model never sees bytes, it gets ids. And with bytes alone a text would have the most tokens, so "
               "it would be slowest."),
    )),
    Question("2.B", "A tokenizer of this kind learned its merges from English text only. You encode a line of Chinese, "
                    "and decode the ids. What comes out?", (
        Option("One token \"unknown\" for each character.",
               "Tokenizers with a list of whole words need such a token. Here every byte is in the vocabulary, so "
               "nothing is unknown."),
        Option("New tokens, learned from the line.",
               "Merges are learned once, before the model is trained, and then never change: the model has a row of "
               "numbers for each token."),
        Option("An error, since the characters are not in the vocabulary.",
               "Their bytes are in it, all 256 are."),
        Option("The right line, in about three tokens a character.",
               "Nothing is lost on the round trip. Without merges for Chinese it falls into single bytes, three for "
               "nearly every character.", right=True),
    )),
    Question("2.C", "You end a prompt with a space: `The cat `. What does that change?", (
        Option("The space is a token, and the next word has to begin without one.",
               "In the text that the model learned from, `cat` was nearly always followed by a word with its space in "
               "front. So it has hardly seen what is asked of it here.", right=True),
        Option("Nothing, the tokenizer drops spaces at the end.",
               "Then the round trip would lose something. The ids differ: there is one more."),
        Option("It helps, since the model need not write the space itself.",
               "It costs the model nothing: the space is a part of the token for ` sits`. Now this token is out of "
               "place, and one for `sits` is needed."),
    )),
    Question("2.D", "A program joins the messages of strangers into one text and calls `tokenizer.encode(text)`. What "
                    "can a stranger do who types `<|im_end|>`?", (
        Option("Nothing, it is just ten characters more.",
               "With `special_tokens=False` it would be. As it stands, `encode` makes one special token of them."),
        Option("Stop the program.",
               "The program runs on. It is the model that is misled."),
        Option("End their own turn, and write the next one in the name of somebody else.",
               "To the model typed marks look the same as real ones. So what people typed is encoded as ordinary "
               "text, which is what `encode_chat` does.", right=True),
    )),
)
