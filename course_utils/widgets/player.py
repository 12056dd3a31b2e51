"""Going through something step by step: a field for the step, and buttons beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from course_utils.language import gettext
from course_utils.widgets.panel import Control, Explorer, number


def step_control(steps: int, at: int = 1) -> Control:
    """A field for the number of a step, 1 to `steps`."""
    return number(gettext("step, 1 to {steps}").format(steps=steps), at, least=1, most=steps, step=1)


def step_buttons() -> dict[str, Callable[[Explorer], None]]:
    """Buttons that set an explorer's control `step`; it stays within its bounds by itself."""
    return {gettext("First"): _to(lambda step: step.min), gettext("Previous"): _to(lambda step: step.value - 1),
            gettext("Next"): _to(lambda step: step.value + 1), gettext("Last"): _to(lambda step: step.max)}


def _to(place: Callable[[Any], int]) -> Callable[[Explorer], None]:
    def click(explorer: Explorer) -> None:
        step = explorer.controls["step"]
        step.value = place(step)

    return click
