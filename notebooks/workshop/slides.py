"""Slides of parts of chapters: their headings, pictures, votes, tasks and what is typed, with notes, in one HTML file.

The file needs nothing else: the pictures are in it, and the few lines of script that turn the pages. (nbconvert's own
slides load reveal.js, which would have to be fetched from npm and laid beside each file.) Arrow keys and Page Up and
Down turn the pages, `n` shows the notes, and printing gives all pages with their notes.
"""

from __future__ import annotations

import html
from pathlib import Path

from nbconvert.filters import markdown2html
from nbformat import NotebookNode
from workshop.guide import notes_of, question_lines
from workshop.parts import Part, is_live, without_code
from workshop.paths import Workshop, minutes_in_class

from course_utils.exercises.question import find_question, inline

_PAGE = Path(__file__).resolve().with_suffix(".html")


def slides_of_chapter(title: str, parts: list[Part]) -> str:
    """The slides of a chapter.

    Args:
        title: of the first slide and of the page.
        parts: the parts of the chapter, the first of which, its opening, is the first slide.
    """
    first = _slide(f"<h1>{html.escape(title)}</h1>", [])
    return _page(title, [first, *(slide for part in parts[1:] for slide in _slides(part))])


def slides_of_path(path: Workshop) -> str:
    """The slides of a workshop: an opening, its aims, and each line of its agenda."""
    aims = "".join(f"<li>{markdown(aim, inline_only=True)}</li>" for aim in path.aims)
    found = [_slide(f"<h1>{html.escape(path.title)}</h1>", [" ".join(path.summary.split())]),
             _slide(f"<h2>Aims</h2><ul>{aims}</ul>", [])]
    for entry in (entry for day in path.days for entry in day):
        if entry.part is None:
            found.append(_slide(f"<h2>{html.escape(entry.title)}</h2><p class=\"minutes\">{entry.minutes} minutes</p>",
                                [" ".join(entry.say.split())]))
        else:
            found += _slides(entry.part)
    return _page(path.title, found)


def markdown(text: str, inline_only: bool = False) -> str:
    """Markdown as HTML; with `inline_only` without the paragraph around it."""
    found: str = markdown2html(text).strip()
    return found.removeprefix("<p>").removesuffix("</p>") if inline_only else found


def _page(title: str, slides: list[str]) -> str:
    return _PAGE.read_text(encoding="utf-8").format(title=html.escape(title), slides="\n".join(slides))


def _slide(content: str, notes: list[str]) -> str:
    below = f"<div class=\"note\">{markdown(chr(10).join(notes))}</div>" if any(notes) else ""
    return f"<section>{content}{below}</section>"


def _slides(part: Part) -> list[str]:
    """The slides of a part: its heading (with the task of an exercise), its pictures, what is typed, its votes."""
    title = markdown(part.title, inline_only=True)
    minutes = f"<p class=\"minutes\">Chapter {part.chapter}, {minutes_in_class(part)} minutes</p>"
    task = ""
    if part.exercise:
        _, _, below = without_code(part.cells[0].source).partition(f"Exercise {part.exercise}:")
        task = markdown(below.partition("\n")[2])
    found = [_slide(f"<h2>{title}</h2>{task or minutes}", notes_of(part))]
    for cell in part.cells:
        if is_live(cell):
            found.append(_slide(f"<h2>{title}</h2><p>We type together.</p>", ["```python", cell.source, "```"]))
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                found.append(_slide(f"<h2>{title}</h2>{_figure(output)}", []))
    for question_id in part.questions:
        question = find_question(question_id)
        options = "".join(f"<li>{inline(option.text)}</li>" for option in question.options)
        found.append(_slide(f"<h2>{inline(question.text)}</h2><ol type=\"A\">{options}</ol>",
                            question_lines(question, explained=True)))
    return found


def _figure(output: NotebookNode) -> str:
    sentence = html.escape(output["data"]["text/plain"].removeprefix("Figure: "))
    png = "".join(output["data"]["image/png"].split())
    return (f"<figure><img src=\"data:image/png;base64,{png}\" alt=\"{sentence}\"><figcaption>{sentence}</figcaption>"
            "</figure>")
