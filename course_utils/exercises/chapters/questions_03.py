"""Quick questions of chapter 3: pickle, mapped files, steps of bfloat16, and the two modes of a model."""

from __future__ import annotations

from course_utils.exercises.question import Option, Question

QUESTIONS = (
    Question("3.A", "Somebody sends you weights as `model.bin`, written with pickle. What speaks against loading "
                    "them?", (
        Option("The file can be damaged on its way.",
               "So can any file. What a damaged file does is fail, or give wrong numbers."),
        Option("Its numbers are less exact than those of safetensors.",
               "Both store the bits of the tensors as they are."),
        Option("Loading it can run any program, with your rights.",
               "The instructions in a pickle may call any function. `torch.load` refuses that since version 2.6, "
               "unless one says `weights_only=False`.", right=True),
    )),
    Question("3.B", "Why did loading not take the memory twice, once for the new model and once for the file?", (
        Option("The new model had no numbers, and was given the very tensors of the file.",
               "On the meta device there are only shapes. With `assign=True` nothing is copied, so the numbers exist "
               "once.", right=True),
        Option("Python frees the new model's random numbers once they are replaced.",
               "It would, but only afterwards. Until then both have to fit, and that is when a large model fails."),
        Option("The file is in bfloat16, which takes half of the memory.",
               "That makes everything smaller. Held twice, it would still take twice as much as held once."),
        Option("`load_state_dict` reads one tensor after the other.",
               "Without `assign=True` it would still copy into tensors that had been filled with random numbers "
               "before."),
    )),
    Question("3.C", "A weight in bfloat16 is 1.0, and training wants to add 0.001 to it. What is it then?", (
        Option("1.001", "Near 1 the next larger number that bfloat16 has is 1.0078. There is nothing between."),
        Option("1.0",
               "The step upward is 0.0078, so 1.001 is rounded back to 1.0, and a thousand such steps change nothing. "
               "This is why training usually keeps a copy of the weights in float32.", right=True),
        Option("1.0078", "Numbers are rounded to the nearest, and 1.001 is nearer to 1.0."),
        Option("Infinity", "Sums overflow when they are too large. That happens in float16, above 65,504."),
    )),
    Question("3.D", "You forget `eval()` and let a model without dropout or batch normalization write a text. What "
                    "happens?", (
        Option("It learns from your prompt.",
               "No mode changes weights. That takes gradients and an optimizer, which makes a step with them."),
        Option("It takes more memory, since gradients are prepared.",
               "That is so in both modes, until `inference_mode` or `no_grad` switches it off."),
        Option("It writes a random text.",
               "A mode does not touch the weights. Only modules that look at the switch behave differently, and there "
               "is none here."),
        Option("Nothing else than with it.",
               "No module of it looks at the switch. With the next model that may be otherwise, so one calls it "
               "always.", right=True),
    )),
)
