"""What if: the limits of a model's speed as its size, its precision, the text, the users and the machine change."""

from __future__ import annotations

from course_utils.errors import InputError
from course_utils.family import FAMILY
from course_utils.language import gettext, noted
from course_utils.planner import GPUS, H100, PRECISIONS, USABLE, Gpu, Plan, Precision, Work, pass_work, plan
from course_utils.plots.planning import planned_roofline
from course_utils.timing import format_seconds
from course_utils.widgets.panel import Explorer, View, choice, number

_MODELS = [(name.removeprefix("Qwen/"), name) for name in FAMILY if not name.endswith("-Base")]
_OWN = noted("own numbers")


def explore_roofline(measured: Gpu | None = None) -> Explorer:
    """Turn the knobs of a plan, and see which bound holds, how fast decoding can be, and whether it fits in memory.

    Args:
        measured: the learner's own machine, as it was measured. It can be chosen, and its roofs are marked beside those
            of any other machine. Its numbers are not in what stands there at first, which is the same everywhere.
    """
    machines = {gpu.name: gpu for gpu in (*GPUS, *([measured] if measured else []))}

    def draw(model: str, precision: Precision, context: int, users: int, machine: str, memory: float, bandwidth: float,
             arithmetic: float) -> View:
        own = Gpu(_OWN, memory * 1e9, bandwidth * 1e9, arithmetic * 1e12) if machine == gettext(_OWN) else None
        return planned_limits(model, own or machines[machine], precision, context, users, measured)

    return Explorer(draw, {
        "model": choice(gettext("model"), _MODELS, "Qwen/Qwen3-8B"),
        "precision": choice(gettext("precision of the weights"), PRECISIONS, "bfloat16"),
        "context": number(gettext("tokens of each text"), 4096, step=1024),
        "users": number(gettext("users at once"), 1, step=1),
        "machine": choice(gettext("machine"), [*machines, gettext(_OWN)], H100.name),
        "memory": number(gettext("own memory, GB"), 16.0, least=1, most=1e5, step=8),
        "bandwidth": number(gettext("own bandwidth, GB/s"), 100.0, least=1, most=1e5, step=50),
        "arithmetic": number(gettext("own arithmetic, TFLOP/s"), 1.0, least=0.001, most=1e5, step=1),
    })


def planned_limits(model: str, gpu: Gpu, precision: Precision = "bfloat16", context: int = 4096, users: int = 1,
                   measured: Gpu | None = None) -> View:
    """What a model can do at best on a machine, as a picture and in words.

    Args:
        model: one of the family, such as "Qwen/Qwen3-8B".
        gpu: the machine.
        precision, context, users: as for `plan`.
        measured: another machine, whose roofs are marked in the picture.

    Raises:
        InputError: if there is no such model or precision, or a number is not from 1 on.
        ContextLengthError: if the context is longer than the model's.
    """
    if model not in FAMILY:
        raise InputError(gettext("There is no model {model!r}: choose one of {family}.").format(
            model=model, family=", ".join(FAMILY)))
    config = FAMILY[model]
    planned = plan(config, gpu, precision, context, users)
    decode = pass_work(config, precision, 1, context - 1, users)
    prefill = pass_work(config, precision, context)
    sentence = gettext("{model} in {precision} on {name}, texts of {context} tokens, "
                       "{users} at once. {room} {speed}").format(
        model=model.removeprefix("Qwen/"), precision=precision, name=gpu.name, context=context, users=users,
        room=_room(planned), speed=_speed(planned, decode, prefill))
    return View.of_figure(planned_roofline(planned, decode, prefill, measured), sentence)


def _room(planned: Plan) -> str:
    """Whether it fits into the memory, in a sentence."""
    needed = gettext("Weights take {weights:.1f} GB, caches {caches:.1f} GB, workspace {workspace:.1f} GB, and "
                     "{usable:.1f} GB can be planned with: ").format(
        weights=planned.weights / 1e9, caches=planned.caches / 1e9, workspace=planned.workspace / 1e9,
        usable=USABLE * planned.gpu.memory / 1e9)
    if planned.gpus is None:
        return needed + gettext("it does not fit, not even on as many as there are key-value heads.")
    return needed + (gettext("it fits.") if planned.gpus == 1 else gettext("{gpus} of them are needed.").format(
        gpus=planned.gpus))


def _speed(planned: Plan, decode: Work, prefill: Work) -> str:
    """Which bound holds, and the limit that follows, in sentences."""
    ridge = planned.gpu.arithmetic / planned.gpu.bandwidth

    def bound(work: Work) -> str:
        return gettext("has {intensity:.1f} operations per byte and is bound by {bound}").format(
            intensity=work.intensity, bound=gettext("memory") if work.intensity < ridge else gettext("arithmetic"))

    said = gettext("The ridge is at {ridge:.0f} operations per byte. Decoding {bound}").format(
        ridge=ridge, bound=bound(decode))
    if planned.tokens_per_second is None or planned.throughput is None or planned.prefill_seconds is None:
        return gettext("{said}. Reading a prompt of that length {bound}.").format(said=said, bound=bound(prefill))
    return gettext("{said}: at most {tokens_per_second:.1f} tokens/s for each user, {throughput:.1f} for all together. "
                   "Reading a prompt of that length {bound}: at least {format_seconds}.").format(
        said=said, tokens_per_second=planned.tokens_per_second, throughput=planned.throughput, bound=bound(prefill),
        format_seconds=format_seconds(planned.prefill_seconds))
