"""What an instructor takes along, written into a folder: agenda, slides, notebooks to learn and to teach from."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from workshop.agenda import agenda
from workshop.excerpt import excerpt, for_learners
from workshop.guide import chapter_guide
from workshop.parts import parts
from workshop.paths import Workshop, chapter_file, minutes_in_class, read_chapter
from workshop.slides import slides_of_chapter, slides_of_path

CAPSTONE = Path(__file__).resolve().parent / "capstone.md"


def write_path(path: Workshop, folder: Path, elsewhere: str) -> None:
    """Write a path's kit: `agenda.md`, `slides.html`, `learners/` and `complete/`, and `capstone.md` where it has one.

    Args:
        path: the workshop.
        folder: where to; made where it is missing.
        elsewhere: the address of the folder of all chapters, to which the notebooks' links lead.
    """
    _write(folder / "agenda.md", agenda(path))
    _write(folder / "slides.html", slides_of_path(path))
    if any(entry.title.startswith("Capstone") for day in path.days for entry in day):
        shutil.copyfile(CAPSTONE, folder / CAPSTONE.name)
    for chapter, notebook in excerpts(path, elsewhere).items():
        name = chapter_file(chapter).name
        _write_notebook(folder / "complete" / name, notebook)
        _write_notebook(folder / "learners" / name, for_learners(notebook))


def excerpts(path: Workshop, elsewhere: str) -> dict[int, NotebookNode]:
    """Each chapter of a path, by its number, cut down to the parts that the path has of it."""
    return {chapter: excerpt(read_chapter(chapter), {part.title for part in chosen}, sum(map(minutes_in_class, chosen)),
                             elsewhere)
            for chapter, chosen in path.parts().items()}


def write_guide(notebook: Path, folder: Path) -> None:
    """Write the instructor's page of a chapter."""
    _write(folder / f"{notebook.stem}.md", chapter_guide(_read(notebook)))


def write_live(notebook: Path, folder: Path) -> None:
    """Write a whole chapter with the live cells emptied."""
    _write_notebook(folder / notebook.name, for_learners(_read(notebook)))


def write_slides(notebook: Path, folder: Path) -> None:
    """Write the slides of a whole chapter."""
    found = parts(_read(notebook))
    _write(folder / f"{notebook.stem}.html", slides_of_chapter(found[0].title, found))


def _read(notebook: Path) -> NotebookNode:
    return nbformat.read(notebook, as_version=4)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_notebook(path: Path, notebook: NotebookNode) -> None:
    nbformat.validate(notebook)
    _write(path, nbformat.writes(notebook) + "\n")
