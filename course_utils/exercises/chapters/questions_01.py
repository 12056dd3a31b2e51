"""Quick questions of chapter 1: where a text ends, devices, what a small model shows, and TF32."""

from __future__ import annotations

from course_utils.exercises.question import Option, Question

QUESTIONS = (
    Question("1.A", "An answer of `complete` breaks off in the middle of a sentence. Why?", (
        Option("The model cannot write a longer sentence.",
               "Raise the number to `complete(prompt, 80)`, and it goes on to the end of its sentence."),
        Option("The model had nothing more to say.",
               "A model that is done chooses a special end token, and that comes after a whole sentence. Here it was "
               "not asked again."),
        Option("It was asked for 24 tokens, and these were used up.",
               "The loop stops after `max_new_tokens`, wherever the sentence is. The model does not know how many "
               "are left.", right=True),
        Option("The memory was full.",
               "Too little memory makes an error, not a shorter text."),
    )),
    Question("1.B", "A model is on the GPU, and its input on the CPU. What does PyTorch do?", (
        Option("It raises an error.",
               "An operation runs on one device and reads the memory of that device. PyTorch leaves it to you what is "
               "moved, and when.", right=True),
        Option("It copies the input over, which costs a little time.",
               "It never moves a tensor unasked, since a hidden copy in every step could cost more than the step. You "
               "write `.to(device)`."),
        Option("It computes on the CPU, which both can reach.",
               "The model's numbers are in the GPU's memory, where the CPU's operations cannot read them."),
    )),
    Question("1.C", "Something is true of `tiny`. For which of these may you expect the same of Qwen3-0.6B?", (
        Option("It gives the right answer to a question about language models.",
               "What a model knows comes from the text that it was trained on, and these two read different texts."),
        Option("A token takes so many milliseconds.",
               "The larger model has nearly a hundred times as many parameters to read for each token. Its speed has "
               "to be measured on its own."),
        Option("Its weights take about 13 MB.",
               "Memory is parameters times bytes of each, and the larger model has nearly a hundred times as many: "
               "about 1.2 GB."),
        Option("Each new token is chosen from scores for the whole vocabulary.",
               "How the text comes about is the same program for both. Sizes, speed and knowledge are their own.",
               right=True),
    )),
    Question("1.D", "You allow TF32 on a GPU that has it. How much memory do the matrices of a float32 model take "
                    "then?", (
        Option("About 19/32 of what they took.",
               "The format has 19 bits, but nothing is stored in it."),
        Option("As much as before.",
               "The numbers stay in float32 and are only shortened on their way into a multiplication. TF32 saves "
               "time; bfloat16 saves time and memory.", right=True),
        Option("Half, as with bfloat16.",
               "bfloat16 is a format for storing numbers, 2 bytes each. TF32 only exists inside the multiplication."),
    )),
)
