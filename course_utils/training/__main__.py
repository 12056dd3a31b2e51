"""Train a bundled model from nothing, or measure one.

`python -m course_utils.training tiny --out data/tiny` makes the model.
`python -m course_utils.training nano --out data/nano --target data/tiny` makes a draft for it, with the same tokenizer.
Stopped with Ctrl-C, or killed, either goes on where it was when the same command is given again.
`python -m course_utils.training figures --out data/tiny` measures it and writes its model card.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from course_utils.errors import CourseError


def main() -> int:
    """Read the command line and run it."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.training", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tiny", "nano", "figures"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--target", type=Path, metavar="FOLDER", help="of the model to draft for, and to learn from")
    parser.add_argument("--first-stage", type=int, default=1, metavar="N",
                        help="begin with this stage of the recipe, on the model that lies in the folder")
    arguments = parser.parse_args()
    try:
        if arguments.what == "figures":
            measure(arguments.out)
        else:
            from course_utils.training.recipes import train_bundled

            train_bundled(arguments.what, arguments.out, arguments.target, arguments.first_stage)
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on with a training where it was.", file=sys.stderr)
        return 130
    return 0


def measure(folder: Path) -> None:
    """Measure the model in a folder named after its recipe, and write its model card there."""
    import torch

    from course_utils.loading import load_model, load_tokenizer
    from course_utils.training import evaluate
    from course_utils.training.model_card import write_model_card

    model, tokenizer = load_model(folder, device="cpu", dtype=torch.float32), load_tokenizer(folder)
    figures = evaluate.all_figures(model, tokenizer)
    if folder.name != "tiny":
        tiny = load_model("tiny", device="cpu")
        for where, blocks in (("held-out documents", evaluate.held_out_blocks(tokenizer, 40, 512)),
                              ("their answers alone", evaluate.answer_blocks(tokenizer, 40, 512))):
            figures[f"same likeliest next token as tiny, {where}"] = evaluate.agreement(tiny, model, blocks)
    for measure, value in figures.items():
        print(f"{measure}: {value:.4f}")
    answers = [answer for chinese in (False, True)
               for answer in evaluate.exam_answers(model, tokenizer, chinese, chat=True)]
    write_model_card(folder.name, folder, model, figures, answers)


if __name__ == "__main__":
    sys.exit(main())
