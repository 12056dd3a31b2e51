"""Write and check what is the same in every notebook: set-up cell, badges, solutions, outputs, metadata.

    python notebooks/build.py execute FILES...   fill in, run top to bottom, normalize
    python notebooks/build.py check FILES...     list what a committed notebook must not have (see rules.py)
    python notebooks/build.py repository URL     name the repository, and renew badges, set-up cells and README
    python notebooks/build.py translate LANGUAGE [FILES...]
                                                 bring a language's catalogs (locale/LANGUAGE/*.po) up to date and write
                                                 its notebooks (LANGUAGE/*.ipynb), which `execute` and `check` take, too

A notebook is written with a code cell `# setup`, and with a line `<!-- solution 4.1 -->` where a solution belongs; the
badges go behind its first heading. Filling in a second time changes nothing. The notebook of another language is never
edited: it is made of the English one and of the catalogs.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

import nbformat
import package_texts
import translation
from catalogs import BOUND, COMMON, Catalogs, glossary, unusual
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from rules import WIDGET_VIEW, faults, translated_faults

FOLDER = Path(__file__).resolve().parent
PROJECT_FILE = FOLDER.parent / "pyproject.toml"
README = FOLDER.parent / "README.md"
LOCALE = FOLDER / "locale"
PACKAGE = FOLDER.parent / "course_utils"
_REPOSITORY = re.compile(r'^(Repository = ")([^"]*)(")$', re.MULTILINE)
_WEBSITE = re.compile(r"https://[\w-]+\.github\.io/[\w.-]+/")

_IS_SETUP = re.compile(r"#\s*(@title )?setup\b", re.IGNORECASE)
SETUP = '''\
# @title Setup: make the package importable here, on Colab or in a Studio.
REPOSITORY = "{repository}"
try:
    import course_utils
except ImportError:
    import pathlib, subprocess, sys
    folders = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
    here = [str(f) for f in folders if (f / "course_utils").is_dir()]
    source = (here + [REPOSITORY + "/archive/main.zip"])[0]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", source]
    run = subprocess.run(pip, capture_output=True, text=True)
    if run.returncode:
        print("Setup failed: offline, or is REPOSITORY wrong? pip says:",
              *run.stderr.strip().splitlines()[-1:])'''
# Nobody need read it: its source is folded in JupyterLab, on the website, and in Colab, where the title stands instead.
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}

# What a notebook's kernel finds in its environment, here and in pytest: this package, small measurements, no file that
# keeps a learner's progress, and no progress bars, which would be kept as they were when they were drawn first.
KERNEL_ENVIRONMENT = {"COURSE_PROGRESS": "", "COURSE_SMALL": "1", "PYTHONPATH": str(FOLDER.parent),
                      "TQDM_DISABLE": "1", "COURSE_LANGUAGE": "en"}


def repository() -> str:
    """The address of the course's repository: what pyproject.toml says under [project.urls]."""
    found = _REPOSITORY.search(PROJECT_FILE.read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit(f"{PROJECT_FILE.name} has no line Repository = \"...\": add it under [project.urls].")
    return found.group(2)


def website(address: str) -> str:
    """Where GitHub Pages publishes the website of a repository."""
    owner, name = address.removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


def badges(address: str, name: str) -> str:
    """The line of links that open a notebook elsewhere: text, so that reading it needs no network."""
    path = f"/blob/main/notebooks/{name}"
    colab = "https://colab.research.google.com/github" + address.removeprefix("https://github.com") + path
    studio = "https://lightning.ai/new?repo_url=" + quote(address + path, safe="")
    return f"[Open in Colab]({colab}) · [Open in Lightning Studio]({studio})"


def with_badges(source: str, line: str) -> str:
    """The source of a notebook's first cell, its badges set or renewed behind the heading."""
    heading, _, rest = source.partition("\n")
    rest = rest.lstrip("\n")
    if rest.startswith("[Open in Colab]("):
        rest = rest.partition("\n")[2].lstrip("\n")
    return f"{heading}\n\n{line}\n\n{rest}".rstrip()


def with_solutions(source: str) -> str:
    """The source of a Markdown cell, a solution set or renewed behind each line `<!-- solution ID -->`."""
    from course_utils.exercises import solution_source

    def block(match: re.Match[str]) -> str:
        exercise_id = match.group(1)
        return (f"<!-- solution {exercise_id} -->\n<details><summary>Solution</summary>\n\n```python\n"
                f"{solution_source(exercise_id)}\n```\n\n</details>\n<!-- end of solution -->")

    marker = r"^<!-- solution ([\w.]+) -->$(?:\n<details>.*?^<!-- end of solution -->$)?"
    return re.sub(marker, block, source, flags=re.MULTILINE | re.DOTALL)


def filled_in(notebook: NotebookNode, name: str) -> NotebookNode:
    """A copy of a notebook with up-to-date set-up cell, badges and solutions."""
    notebook = copy.deepcopy(notebook)
    address = repository()
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and _IS_SETUP.match(cell.source):
            cell.source, cell.metadata = SETUP.format(repository=address), nbformat.from_dict(FOLDED)
        elif cell.cell_type == "markdown" and position == 0:
            cell.source = with_badges(cell.source, badges(address, name))
        elif cell.cell_type == "markdown" and "<!-- solution" in cell.source:
            cell.source = with_solutions(cell.source)
    return notebook


def normalized(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook without what differs between machines or runs and is no output."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # cells have ids
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id = f"cell-{number:02}"
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in FOLDED if cell.metadata.get(key)})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = NotebookNode()
            # A widget lives in its kernel alone; what is kept is its static form.
            output.get("data", {}).pop(WIDGET_VIEW, None)
    nbformat.validate(notebook)
    return notebook


def executed(notebook: NotebookNode, timeout: int) -> NotebookNode:
    """A copy of a notebook, run top to bottom in a fresh kernel of this Python.

    None of this terminal's settings for the course and the hub reaches the kernel.
    """
    notebook = copy.deepcopy(notebook)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "HF_"))}
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", record_timing=False,
                            coalesce_streams=True, resources={"metadata": {"path": str(FOLDER)}})
    client.execute(env=environment | KERNEL_ENVIRONMENT)  # another language than English is set by the set-up cell
    return notebook


def read(path: Path) -> NotebookNode:
    """A notebook from its file, in today's format."""
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """A notebook to its file, unless that would change nothing."""
    text = nbformat.writes(normalized(notebook)) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def language_of(path: Path) -> str:
    """The language of a notebook: that of its folder, else English."""
    folder = path.resolve().parent
    return folder.name if folder.parent == FOLDER and (LOCALE / folder.name).is_dir() else "en"


@cache
def catalogs(language: str) -> Catalogs:
    """The catalogs of a language, beside all messages of the English notebooks."""
    messages = {path.stem: list(translation.messages(read(path))) for path in sorted(FOLDER.glob("*.ipynb"))}
    return Catalogs(LOCALE / language, language, messages, translation.OWN)


@cache
def package_catalog(language: str) -> Catalogs:
    """The package's catalog in a language, named as the language, beside all its messages."""
    return Catalogs(PACKAGE / "locale", language, {language: package_texts.messages(PACKAGE)})


def up_to_date(path: Path) -> NotebookNode:
    """A notebook as it should be now, but for its outputs: filled in, or made of the English one and the catalogs."""
    if (language := language_of(path)) == "en":
        return normalized(filled_in(read(path), path.name))
    links = badges(repository(), f"{language}/{path.name}")
    told = partial(catalogs(language).told, path.stem)
    return normalized(translation.translated(read(FOLDER / path.name), language, told, links))


def translate(language: str, paths: list[Path]) -> None:
    """Bring a language's catalogs up to date and write its notebooks; a cell whose code is new has no output yet.

    Args:
        language: its short name, such as "zh"; a new one begins here.
        paths: the English notebooks; all of them if there are none, and then those that are far behind are left out.
    """
    names = [path.stem for path in paths or sorted(FOLDER.glob("*.ipynb"))]
    (LOCALE / language).mkdir(parents=True, exist_ok=True)
    (FOLDER / language).mkdir(exist_ok=True)
    ours, package = catalogs(language), package_catalog(language)
    ours.update([COMMON, *names])
    package.update([language])
    report(package, language)
    report(ours, COMMON)
    for name in names:
        sound, share = report(ours, name)
        if sound and (paths or share <= BOUND):
            path = FOLDER / language / f"{name}.ipynb"
            fresh = up_to_date(path)
            write(with_outputs(fresh, read(path)) if path.is_file() else fresh, path)


def report(ours: Catalogs, name: str) -> tuple[bool, float]:
    """Print how far a catalog is and what is wrong; returns whether nothing is wrong, and the share that is behind."""
    needed, behind = ours.needed(name), ours.behind(name)
    print(f"{name}: {len(needed)} messages, {len(behind)} behind")
    found = list(ours.faults(name))
    for fault in found:
        print(f"- {fault}")
    terms = glossary(LOCALE / ours.language / "glossary.tsv")
    for text in needed:
        if told := ours.told(name, text):
            for term in unusual(terms, text, told):
                print(f"- glossary, {text[:40]!r}...: {term}")
    return not found, len(behind) / max(1, len(needed))


def with_outputs(notebook: NotebookNode, earlier: NotebookNode) -> NotebookNode:
    """A copy of a notebook with the outputs that its cells had earlier, where their code is the same."""
    notebook = copy.deepcopy(notebook)
    kept = {cell.source: cell for cell in earlier.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source in kept:
            cell.outputs, cell.execution_count = kept[cell.source].outputs, kept[cell.source].execution_count
    return notebook


def execute(paths: list[Path], timeout: int) -> int:
    """Fill in, run and write notebooks; one that fails is left as it was, and counted."""
    failures = 0
    for path in paths:
        try:
            write(executed(up_to_date(path), timeout), path)
            print(f"{path}: executed")
        except (CellExecutionError, TimeoutError) as error:
            failures += 1
            print(f"{path}: {error}", file=sys.stderr)
    return failures


def check(paths: list[Path]) -> int:
    """Print the faults of notebooks, and count them."""
    count = 0
    for path in paths:
        notebook = read(path)
        found = (faults if language_of(path) == "en" else translated_faults)(notebook, up_to_date(path))
        count += len(found)
        print(f"{path}: {len(found) or 'no'} faults", *found, sep="\n- ")
    return count


def set_repository(address: str) -> None:
    """Name the repository in pyproject.toml, and renew what follows from it: the README's link to the website, and the
    badges and set-up cells of all notebooks."""
    address = address.rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise SystemExit(f"{address} is not like https://github.com/OWNER/NAME, which Colab can open.")
    text = PROJECT_FILE.read_text(encoding="utf-8")
    PROJECT_FILE.write_text(_REPOSITORY.sub(rf"\g<1>{address}\g<3>", text), encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    README.write_text(_WEBSITE.sub(website(address), text), encoding="utf-8")
    for path in sorted(FOLDER.glob("*.ipynb")):
        write(filled_in(read(path), path.name), path)
    for path in sorted(FOLDER.glob("*/*.ipynb")):
        if language_of(path) != "en":
            write(with_outputs(up_to_date(path), read(path)), path)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("execute", "check"):
        command = commands.add_parser(name)
        command.add_argument("files", nargs="+", type=Path)
        if name == "execute":
            command.add_argument("--timeout", type=int, default=600, help="seconds a cell may take (600)")
    commands.add_parser("repository").add_argument("url")
    command = commands.add_parser("translate")
    command.add_argument("language")
    command.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "repository":
        set_repository(arguments.url)
        return
    if arguments.command == "translate":
        translate(arguments.language, arguments.files)
        return
    failed = (execute(arguments.files, arguments.timeout) if arguments.command == "execute"
              else check(arguments.files))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
