"""Write and check what is the same in every notebook: set-up cell, badges, solutions, outputs, metadata.

    python notebooks/build.py execute FILES...   fill in, run top to bottom, normalize
    python notebooks/build.py check FILES...     list what a committed notebook must not have (see rules.py)
    python notebooks/build.py repository URL     name the repository, and renew badges, set-up cells and README
    python notebooks/build.py translate LANGUAGE [FILES...]
                                                 bring a language's catalogs (locale/LANGUAGE/*.po and that of the
                                                 package) up to date and write its README and its notebooks
                                                 (LANGUAGE/*.ipynb), which `execute` and `check` take, too

For a workshop (see workshop/parts.py for the marks), the last four write into build/workshop, or where --out says:

    python notebooks/build.py parts FILES...     list the parts of chapters, their minutes, and what is not marked
    python notebooks/build.py mark FILES...      propose marks where there are none; with --anew estimate all minutes
    python notebooks/build.py workshop [NAMES]   each path's kit: agenda, slides, notebooks to learn and to teach from
    python notebooks/build.py guide FILES...     an instructor's page for each chapter
    python notebooks/build.py live FILES...      chapters with the cells emptied that are typed together
    python notebooks/build.py slides FILES...    slides of chapters, with notes

A notebook is written with a code cell `# setup`, and with a line `<!-- solution 4.1 -->` where a solution belongs; the
badges go behind its first heading. Filling in a second time changes nothing. The notebook of another language is never
edited: it is made of the English one and of the catalogs.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import re
import sys
import uuid
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
from workshop import parts as workshop_parts

FOLDER = Path(__file__).resolve().parent
PROJECT_FILE = FOLDER.parent / "pyproject.toml"
README = FOLDER.parent / "README.md"
LOCALE = FOLDER / "locale"
PACKAGE = FOLDER.parent / "course_utils"
KITS = Path("build") / "workshop"
_REPOSITORY = re.compile(r'^(Repository = ")([^"]*)(")$', re.MULTILINE)
_ANY_WEBSITE = "https://OWNER.github.io/NAME/"
_WEBSITE = re.compile(r"https://[\w-]+\.github\.io/[\w.-]+/")

_IS_SETUP = re.compile(r"#\s*(@title )?setup\b", re.IGNORECASE)
SETUP = '''\
# @title Setup: make the package importable here, on Colab or in a Studio.
REPOSITORY = "{repository}"
PROGRESS_ON_DRIVE = False  # @param {{type: "boolean"}}
try:
    from course_utils import load_model as _
except (ImportError, AttributeError):  # not there, or PyTorch is too old
    import importlib.metadata, pathlib, subprocess, sys
    where = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
    here = [f for f in where if (f / "course_utils/__init__.py").is_file()]
    source = str((here + [REPOSITORY + "/archive/main.zip"])[0])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", source]
    run = subprocess.run(pip, capture_output=True, text=True)
    if sys.version_info < (3, 11):
        print("Setup failed: this Python is too old, take 3.11 or later.")
    elif run.returncode:
        print("Setup failed: offline, or is REPOSITORY wrong? pip says:",
              *run.stderr.strip().splitlines()[-1:])
    sys.modules.pop("course_utils", None)  # an empty folder of that name
    importlib.invalidate_caches()
    old = sys.modules.get("torch")
    if old and old.__version__ != importlib.metadata.version("torch"):
        print("PyTorch was replaced: restart the kernel, then run this.")
if PROGRESS_ON_DRIVE:
    from course_utils.colab import use_drive
    use_drive()'''
# Nobody need read it: its source is folded in JupyterLab, on the website, and in Colab, where the title stands instead.
FOLDED = {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
# What of a cell's metadata is kept: how it is shown, and what an instructor needs to know of it.
KEPT = (*FOLDED, workshop_parts.MARK)

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
    repository_name = address.removeprefix("https://github.com/")
    codespaces = f"https://codespaces.new/{repository_name}"
    binder = f"https://mybinder.org/v2/gh/{repository_name}/main?labpath={quote(f'notebooks/{name}', safe='')}"
    return (f"[Open in Colab]({colab}) · [Open in Lightning Studio]({studio}) · [Open in Codespaces]({codespaces}) · "
            f"[Open in Binder]({binder})")


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
    """A copy of a notebook without what differs between machines or runs and is no output.

    A cell keeps its id, so that a learner's copy can be compared with a chapter in which cells were inserted or moved.
    """
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5  # cells have ids
    taken: set[str] = set()
    for cell in notebook.cells:
        cell.id = _own_id(cell, taken)
        cell.metadata = nbformat.from_dict({key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = NotebookNode()
            # A widget lives in its kernel alone; what is kept is its static form.
            output.get("data", {}).pop(WIDGET_VIEW, None)
    nbformat.validate(notebook)
    return notebook


def _own_id(cell: NotebookNode, taken: set[str]) -> str:
    """The id that a cell has, or one like those that JupyterLab makes if it has none of its own; added to `taken`."""
    own: str = cell.get("id") or uuid.uuid4().hex[:8]
    while own in taken:  # copied in a text editor
        own = uuid.uuid4().hex[:8]
    taken.add(own)
    return own


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
    messages[README.stem] = list(translation.messages_of_text(_readme()))
    return Catalogs(LOCALE / language, language, messages, translation.OWN)


@cache
def package_catalog(language: str) -> Catalogs:
    """The package's catalog in a language, named as the language, beside all its messages."""
    return Catalogs(PACKAGE / "locale", language, {language: package_texts.messages(PACKAGE)})


def up_to_date(path: Path) -> NotebookNode:
    """A notebook as it should be now, but for its outputs: filled in, or made of the English one and the catalogs."""
    if (language := language_of(path)) == "en":
        return normalized(filled_in(read(path), path.name))
    told = partial(catalogs(language).told, path.stem)
    links = badges(repository(), f"{language}/{path.name}")
    for text in translation.BADGES:
        links = links.replace(f"[{text}]", f"[{told(text) or text}]")
    notebook = translation.translated(read(FOLDER / path.name), language, told, links)
    for cell in notebook.cells:
        cell.metadata.pop(workshop_parts.MARK, None)  # what an instructor says has no translation
    return normalized(notebook)


def readme_in(language: str) -> str:
    """The README in a language; its chapters are those of the language, where it has them."""
    def moved(path: str) -> str:
        ours = path.replace(f"{FOLDER.name}/", f"{FOLDER.name}/{language}/")
        return ours if path.endswith(".ipynb") and (FOLDER.parent / ours).is_file() else path

    told = partial(catalogs(language).told, README.stem)
    return translation.translated_text(_readme(), told, moved).replace(_ANY_WEBSITE, website(repository()))


def _readme() -> str:
    """The README without a certain website, so that a fork has the same messages."""
    return _WEBSITE.sub(_ANY_WEBSITE, README.read_text(encoding="utf-8"))


def index_in(language: str) -> str:
    """The front page of the website in a language."""
    chapters = catalogs(language).told(COMMON, "Chapters") or "Chapters"
    return (f"```{{include}} ../../README.{language}.md\n```\n\n"
            f"```{{toctree}}\n:caption: {chapters}\n:glob:\n:hidden:\n\n[0-9]*\n```\n")


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
    ours.update([COMMON, README.stem, *names])
    package.update([language])
    report(package, language)
    report(ours, COMMON)
    for name in names:
        sound, share = report(ours, name)
        if sound and (paths or share <= BOUND):
            path = FOLDER / language / f"{name}.ipynb"
            fresh = up_to_date(path)
            write(with_outputs(fresh, read(path)) if path.is_file() else fresh, path)
    if report(ours, README.stem)[0]:
        README.with_suffix(f".{language}.md").write_text(readme_in(language), encoding="utf-8")
        (FOLDER / language / "index.md").write_text(index_in(language), encoding="utf-8")


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
    """A copy of a notebook with the outputs that its cells had earlier, where they do the same."""
    notebook = copy.deepcopy(notebook)
    kept = {_program(cell.source): cell for cell in earlier.cells if cell.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code" and (before := kept.get(_program(cell.source))):
            cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return notebook


def _program(source: str) -> str:
    """What a cell does, without its comments and line breaks; a cell with a magic as it is written.

    A set-up cell does the same as any other: it prints nothing where the package is there.
    """
    if source.startswith("# @title "):
        return "set-up"
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:
        return source


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
    for folder in filter(Path.is_dir, sorted(LOCALE.iterdir())):
        README.with_suffix(f".{folder.name}.md").write_text(readme_in(folder.name), encoding="utf-8")
        for path in sorted((FOLDER / folder.name).glob("*.ipynb")):
            write(with_outputs(up_to_date(path), read(path)), path)


def list_parts(paths: list[Path]) -> int:
    """Print the parts of chapters as an instructor plans with them, and count what is wrong with their marks."""
    count = 0
    for path in paths:
        notebook = read(path)
        print(f"{path}: {workshop_parts.stated_minutes(notebook)[0]} minutes")
        for part in workshop_parts.parts(notebook):
            live = sum(map(workshop_parts.is_live, part.cells))
            print(f"{part.minutes:5}  {part.role or 'UNMARKED':9}{part.audience:12} {part.title}"
                  + (f" ({live} live)" if live else ""))
        found = list(workshop_parts.faults_of_marks(notebook))
        count += len(found)
        print(*found, sep="\n")
    return count


def mark(paths: list[Path], anew: bool) -> None:
    """Propose marks for the parts of chapters that have none."""
    for path in paths:
        notebook = read(path)
        workshop_parts.propose_marks(notebook, anew)
        write(notebook, path)


def workshop(names: list[str], folder: Path, run: bool) -> int:
    """Write the kits of workshops, each into a folder of its name; count the notebooks that failed, if they are run."""
    from workshop import kit, paths

    os.environ["COURSE_LANGUAGE"] = "en"  # that of the chapters
    failures = 0
    for name in names or paths.names():
        kit.write_path(paths.read_path(name), folder / name, f"{repository()}/blob/main/notebooks")
        print(folder / name)
        if run:
            failures += execute(sorted((folder / name / "complete").glob("*.ipynb")), timeout=600)
    return failures


def write_pages(kind: str, notebooks: list[Path], folder: Path) -> None:
    """Write an instructor's page, the live notebook or the slides of each chapter."""
    from workshop import kit

    os.environ["COURSE_LANGUAGE"] = "en"  # that of the chapters
    writer = {"guide": kit.write_guide, "live": kit.write_live, "slides": kit.write_slides}[kind]
    for notebook in notebooks:
        writer(notebook, folder)
    print(folder)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("execute", "check", "parts", "mark", "guide", "live", "slides"):
        command = commands.add_parser(name)
        command.add_argument("files", nargs="+", type=Path)
        if name == "execute":
            command.add_argument("--timeout", type=int, default=600, help="seconds a cell may take (600)")
        elif name == "mark":
            command.add_argument("--anew", action="store_true", help="estimate the minutes of all parts again")
        elif name in ("guide", "live", "slides"):
            command.add_argument("--out", type=Path, default=KITS / name, help="a folder (%(default)s)")
    command = commands.add_parser("workshop")
    command.add_argument("names", nargs="*", help="of the files in workshop/paths; without any, all")
    command.add_argument("--out", type=Path, default=KITS, help="a folder, in which each path gets one (%(default)s)")
    command.add_argument("--run", action="store_true", help="run the complete notebooks, and keep their outputs")
    commands.add_parser("repository").add_argument("url")
    command = commands.add_parser("translate")
    command.add_argument("language")
    command.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    failed: int | None = None
    match arguments.command:
        case "execute":
            failed = execute(arguments.files, arguments.timeout)
        case "check":
            failed = check(arguments.files)
        case "parts":
            failed = list_parts(arguments.files)
        case "mark":
            mark(arguments.files, arguments.anew)
        case "repository":
            set_repository(arguments.url)
        case "translate":
            translate(arguments.language, arguments.files)
        case "workshop":
            failed = workshop(arguments.names, arguments.out, arguments.run)
        case "guide" | "live" | "slides":
            write_pages(arguments.command, arguments.files, arguments.out)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
