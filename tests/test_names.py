"""A name means one thing: no two modules of the package define the same public one."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import course_utils

PACKAGE = Path(course_utils.__file__).parent
# A book's names have a book's meaning, a chapter's are those of its exercises, whose answers are read by readers named
# after what they read, and the corpus has tables of words.
WITH_NAMES_OF_THEIR_OWN = ("textbook.py", "exercises/chapters/", "exercises/answers.py", "corpus/")
PROGRAMS = "main"  # where the programs begin


def public_names(tree: ast.Module) -> Iterator[str]:
    """The classes, functions, constants and types that a module defines and does not call its own affair."""
    for node in tree.body:
        names = []
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def test_a_public_name_is_defined_once() -> None:
    places = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if not module.startswith(WITH_NAMES_OF_THEIR_OWN):
            for name in public_names(ast.parse(path.read_text(encoding="utf-8"))):
                places[name].append(module)
    del places[PROGRAMS]
    assert {name: modules for name, modules in places.items() if len(modules) > 1} == {}
