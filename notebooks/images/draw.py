"""Draw the pictures of this folder, which stand in the README: `python notebooks/images/draw.py`."""

from __future__ import annotations

import base64
from pathlib import Path

from course_utils.plots.course import course_map
from course_utils.plots.figure import as_output
from course_utils.plots.generation import generation_loop

# The ids and the next token are those of the bundled model.
IMAGES = {"generation_loop.png": lambda: generation_loop("Explain logits.", [1085, 2021, 13], " Logits"),
          "course_map.png": course_map}


def main() -> None:
    """Write every picture beside this file."""
    for name, draw in IMAGES.items():
        (Path(__file__).parent / name).write_bytes(base64.b64decode(as_output(draw(), name)["image/png"]))


if __name__ == "__main__":
    main()
