"""How a reader turns knobs: a widget and its static form as one output, and controls that anyone can work.

A `View` is what one setting looks like: a picture or HTML, and one sentence. A `Panel` shows a widget where widgets
work, and everywhere else, in a saved notebook, in print, without ipywidgets, its static form. An `Explorer` is the
panel of a function that draws a `View` from the values of controls.

Works with ipywidgets 7.7, which Colab has, and 8. All controls are those which have a visible label that a screen
reader finds too, and which the keyboard alone can work; sliders do not, so numbers are fields.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from matplotlib.figure import Figure

from course_utils.errors import CourseError
from course_utils.language import gettext, noted
from course_utils.plots.figure import as_output, as_sentence

WITHOUT_WIDGETS = noted("The controls of this cell need ipywidgets, which is not installed: install it by "
                        "python -m pip install ipywidgets, restart the kernel and run the cell again.")

# Seconds without a further change before a panel redraws: while changes queue up, only the last one is drawn.
_PAUSE = 0.02


@dataclass(frozen=True, repr=False)
class View:
    """What a reader sees at one setting. A notebook shows it; elsewhere it is its sentence.

    Attributes:
        html: what is drawn, as HTML; empty for a picture.
        sentence: a full sentence that says what is drawn, for those who do not see it; visible under it.
        png: the picture, in base64; empty for HTML.
    """

    html: str
    sentence: str
    png: str = ""

    @classmethod
    def of_figure(cls, fig: Figure, sentence: str) -> View:
        """The view of a matplotlib picture, which is closed."""
        return cls("", " ".join(sentence.split()), as_output(fig, sentence)["image/png"])

    def live(self) -> str:
        """What is drawn as HTML, without the sentence. A picture carries it as its alternative text."""
        if not self.png:
            return self.html
        return f'<img alt="{escape(self.sentence)}" style="max-width: 100%" src="data:image/png;base64,{self.png}">'

    def static(self) -> dict[str, str]:
        """The same as an output of a notebook, by media type."""
        if self.png:
            return {"image/png": self.png, "text/plain": as_sentence(self.sentence)}
        return {"text/html": f"{self.html}<p>{escape(self.sentence)}</p>", "text/plain": self.sentence}

    def __repr__(self) -> str:
        return self.static()["text/plain"]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return self.static()


@dataclass(frozen=True)
class Control:
    """A control that is yet to be made, so that its value is there without ipywidgets, too.

    Attributes:
        kind: the class of ipywidgets.
        label: visible in front of it.
        value: at the beginning.
        settings: further arguments of the class.
    """

    kind: str
    label: str
    value: Any
    settings: Mapping[str, Any] = field(default_factory=dict)

    def widget(self) -> Any:
        """Make the control."""
        # By default a label is cut after some ten letters.
        return getattr(_ipywidgets(), self.kind)(description=self.label, style={"description_width": "initial"},
                                                 **self.settings, value=self.value)


def number(label: str, value: float, least: float | None = None, most: float | None = None,
           step: float | None = None) -> Control:
    """A field for a number, for a whole one if the value is an int; the arrow keys change it by a step.

    With `least` and `most` what lies beyond is pulled back to them. Without, the function that draws is to refuse
    what makes no sense, in words from which one learns.
    """
    kind = "IntText" if isinstance(value, int) else "FloatText"
    settings: dict[str, Any] = {} if step is None else {"step": step}
    if least is not None and most is not None:
        kind, settings = f"Bounded{kind}", settings | {"min": least, "max": most}
    return Control(kind, label, value, settings)


def choice(label: str, options: Sequence[Any] | Sequence[tuple[str, Any]], value: Any) -> Control:
    """A list to choose from: values, or pairs of a name and a value."""
    return Control("Dropdown", label, value, {"options": list(options)})


def text(label: str, value: str, rows: int = 1) -> Control:
    """A field for text, which counts as one types."""
    # Wide, since a prompt is a sentence.
    settings: dict[str, Any] = {"continuous_update": True, "layout": {"width": "95%"}}
    return Control("Text", label, value, settings) if rows == 1 else Control("Textarea", label, value,
                                                                             settings | {"rows": rows})


class Panel:
    """A widget and its static form as one output: `panel` as the last line of a cell shows it, or `display(panel)`.

    Args:
        view: the static form; may be set anew when what the widget shows has changed.
        make: makes the widget; called if ipywidgets is there.

    Attributes:
        view: the static form as it is now.
        widget: the widget, None without ipywidgets.
    """

    def __init__(self, view: View, make: Callable[[], Any]) -> None:
        self.view = view
        self.widget = make() if has_ipywidgets() else None

    def output(self) -> dict[str, Any]:
        """What a notebook keeps, by media type; it shows the widget wherever it can."""
        output: dict[str, Any] = dict(self.view.static())
        if self.widget is not None:
            output["application/vnd.jupyter.widget-view+json"] = {
                "version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        return output

    def close(self) -> None:
        """Take the widget and all in it off every page that shows them."""
        if self.widget is not None:
            _close(self.widget)

    def __repr__(self) -> str:
        return repr(self.view)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.output(), raw=True)
        if self.widget is None:
            if self.view.png:  # a notebook shows no sentence beside a picture
                print(repr(self))
            print(gettext(WITHOUT_WIDGETS))


class Explorer(Panel):
    """Controls, and below them what a function draws from their values, drawn anew after each change.

    What goes wrong is said in the panel in place of the picture.

    Args:
        draw: takes the values of the controls by name.
        controls: by name, in order.
        buttons: label of each button, and what a click does; it is given the explorer, and may set values of its
            controls.

    Attributes:
        controls: the widgets of the controls by name; empty without ipywidgets.
        buttons: the widgets of the buttons by label; empty without ipywidgets.
    """

    def __init__(self, draw: Callable[..., View], controls: Mapping[str, Control],
                 buttons: Mapping[str, Callable[[Explorer], None]] | None = None) -> None:
        self._draw = draw
        self._pending: asyncio.TimerHandle | None = None
        self.controls: dict[str, Any] = {}
        self.buttons: dict[str, Any] = {}
        try:
            view = draw(**{name: control.value for name, control in controls.items()})
        except CourseError as error:  # any other is a mistake in the cell's code, and stops it
            view = _refusal(error)
        super().__init__(view, lambda: self._make(controls, buttons or {}, view))

    def _make(self, controls: Mapping[str, Control], buttons: Mapping[str, Callable[[Explorer], None]],
              view: View) -> Any:
        ipywidgets = _ipywidgets()
        self.controls = {name: control.widget() for name, control in controls.items()}
        for control in self.controls.values():
            control.observe(lambda change: self._changed(), names="value")
        for label, click in buttons.items():
            self.buttons[label] = ipywidgets.Button(description=label)
            self.buttons[label].on_click(lambda _, click=click: self._show(lambda: click(self)))
        self._picture, self._line = ipywidgets.HTML(), ipywidgets.HTML()
        self._put(view)
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="center")
        return ipywidgets.VBox([ipywidgets.Box(list(self.controls.values()), layout=row),
                                *([ipywidgets.Box(list(self.buttons.values()), layout=row)] if buttons else []),
                                self._picture, self._line])

    def redraw(self) -> None:
        """Draw at once what the controls say now."""
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        self._show(lambda: self._put(self._draw(**{name: control.value for name, control in self.controls.items()})))

    def _changed(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # outside a notebook nothing queues up
            self.redraw()
            return
        if self._pending is not None:
            self._pending.cancel()
        self._pending = loop.call_later(_PAUSE, self.redraw)

    def _show(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever it is, a reader would not find it in the log of the kernel
            self._put(_refusal(error))

    def _put(self, view: View) -> None:
        self.view = view
        # A widget's lines are as high as a button, which is too much for text.
        self._picture.value = f'<div style="line-height: 1.4">{view.live()}</div>'
        self._line.value = live_line(view.sentence, urgent=not view.live())


def live_line(sentence: str, urgent: bool = False) -> str:
    """A sentence as HTML that a screen reader says when it changes: when the reader pauses, or at once if urgent."""
    live = 'role="alert"' if urgent else 'role="status" aria-live="polite"'
    return f'<div {live} style="line-height: 1.4">{escape(sentence)}</div>'


def has_ipywidgets() -> bool:
    """Whether ipywidgets can be imported."""
    try:
        _ipywidgets()
    except ImportError:
        return False
    return True


def _ipywidgets() -> Any:
    return importlib.import_module("ipywidgets")


def _close(widget: Any) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()


def _refusal(error: Exception) -> View:
    """An error as its sentence alone; one that was not raised on purpose is named."""
    sentence = " ".join(str(error).split())
    return View("", sentence if isinstance(error, CourseError) else f"{type(error).__name__}: {sentence}")
