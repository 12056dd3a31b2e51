"""The learning rate over a training."""

from __future__ import annotations

from matplotlib import pyplot
from matplotlib.figure import Figure

from course_utils.plots.figure import INK, SERIES, style
from course_utils.training.loop import TrainingPlan


def learning_rate(plan: TrainingPlan) -> Figure:
    """Draw the rate of every step of a plan: warm-up, then cosine decay."""
    rates = [plan.rate(step) for step in range(plan.steps)]
    rising = plan.warm_up_steps
    with style():
        fig, ax = pyplot.subplots(figsize=(7.0, 2.8))
        ax.plot(range(rising), rates[:rising], color=SERIES[1], marker="", linestyle="--", label="warm-up")
        ax.plot(range(rising, plan.steps), rates[rising:], color=SERIES[0], marker="", label="half a cosine")
        ax.axhline(plan.learning_rate, color=INK, linewidth=1, linestyle=":", marker="", label="peak")
        ax.set(xlabel="step", ylabel="learning rate", xlim=(0, plan.steps), ylim=(0, 1.1 * plan.learning_rate))
        ax.legend(loc="lower left", bbox_to_anchor=(0.12, 0.02))
    return fig
