"""Questions of chapter 7, compilation."""

from course_utils.exercises.question import Option, Question

QUESTIONS: tuple[Question, ...] = (
    Question("7.A", "Somebody times ten calls of a freshly compiled function, takes the average, and finds that "
                    "compiling has made it slower. What is the likeliest reason?", (
        Option("Each call compiles the function again.",
               "Only a call whose guards fail does. With inputs of the same kind, the program of the first call serves "
               "all the others."),
        Option("The first call, in which the compiler works, is averaged in.",
               "One call of a second outweighs nine of a millisecond. Keep warm-up and steady state apart, and report "
               "both.", right=True),
        Option("The function runs eagerly until it has been called often enough to be worth compiling.",
               "Some just-in-time compilers work like that, Java's for one. `torch.compile` compiles at the first "
               "call."),
        Option("Compiled programs are faster on a GPU only.",
               "Fusing saves reading and writing on a CPU as well: three passes over memory became one."),
    )),
    Question("7.B", "A chat model was compiled with `dynamic=False`, and every prompt has another length. What "
                    "happens?", (
        Option("The first prompt of another length raises an error.",
               "A guard that fails is no error, the function is compiled again. Only the stance `fail_on_recompile` "
               "makes an error of it."),
        Option("Prompts of other lengths get wrong answers.",
               "Never: the guards are checked before each call, and a program whose guards fail is not used."),
        Option("Each new length waits for the compiler, and after some of them the function runs eagerly.",
               "A program then serves one length only. Eight are the default limit; beyond it comes a warning, and new "
               "lengths run uncompiled.", right=True),
        Option("The prompts are padded to the length of the first one.",
               "`torch.compile` changes no input. Padding to a few fixed lengths is something that you could do "
               "yourself, and a way to keep programs few."),
    )),
    Question("7.C", "Multiply and sum does the same arithmetic eagerly and compiled. Why is it so much slower "
                    "eagerly?", (
        Option("Python is slow, and the compiled program does without it.",
               "Python starts a handful of operations here, some microseconds each. The time goes into the bytes which "
               "these operations move."),
        Option("The compiled program computes in bfloat16.",
               "It converts to float32 as well, but a few weights at a time, so that the copy never goes to memory."),
        Option("Eager operations use one core of the processor.",
               "They use several threads, too. What these share is the memory, and of it eager execution asks nine "
               "times as much."),
        Option("It writes the copy and the products to memory, and reads them again.",
               "That is 18 bytes for each weight where 2 would do. Fused, they stay within the processor.", right=True),
    )),
    Question("7.D", "What speaks against recording the decoding step in a CUDA graph when the cache is a growing "
                    "one?", (
        Option("At the next step the keys and values have another size and another place.",
               "A recording repeats the very same requests, sizes and addresses included. A recording for each step "
               "would cost more than it saves.", right=True),
        Option("A CUDA graph cannot hold attention.",
               "It can hold any operations of the GPU, as long as nothing about them changes and the CPU need not look "
               "at a result in between."),
        Option("Nothing: a recording is about operations, and these stay the same.",
               "The operations do, but a recording also fixes where each one reads and writes. Played back, it would "
               "look for the keys of the step in which it was made."),
    )),
)
