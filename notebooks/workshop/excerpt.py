"""A chapter cut down to some of its parts: these, and of what is left out only the code that they need."""

from __future__ import annotations

import ast
import copy
import re
import symtable
from collections.abc import Container, Iterable
from dataclasses import dataclass

from code_texts import without_magics
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from workshop.parts import MARK, Part, is_live, mark_of, parts

TYPED_TOGETHER = "# We type this together. Who comes late finds it in the folder \"complete\"."
_TIME = re.compile(r"\*\*Time:\*\*.*?(?=\*\*Builds on:\*\*|\Z)", re.DOTALL)
_CHAPTER_LINK = re.compile(r"\]\((\d\d_\w+\.ipynb)\)")


@dataclass(frozen=True)
class Names:
    """The names of the notebook that a cell of code binds, changes and uses.

    Attributes:
        bound: given a value here, imported or defined.
        changed: something is put into what they stand for, such as `x[0] = 1`, or a method is called for its effect.
        used: looked up here and not bound here before, functions' bodies included.
        imported: those of `bound` that an import binds.
    """

    bound: frozenset[str]
    changed: frozenset[str]
    used: frozenset[str]
    imported: frozenset[str]


def names_of(source: str) -> Names:
    """The names of a cell's code; magics are passed over."""
    source = without_magics(source)
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    bound = {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}
    imported = {symbol.get_name() for symbol in symbols if symbol.is_imported()}
    tree = ast.parse(source)
    changed: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            changed |= _base(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            changed |= _base(node.value.func) if isinstance(node.value.func, ast.Attribute) else set()
    return Names(frozenset(bound), frozenset(changed - imported), frozenset(_looked_up(tree.body, set())),
                 frozenset(imported))


def _looked_up(body: list[ast.stmt], known: set[str]) -> set[str]:
    """The names that statements look up before they bind them; what they bind is added to `known`."""
    found: set[str] = set()
    for statement in body:
        match statement:
            case ast.For(target, iterated, inner, other):
                found |= _loaded(iterated) - known
                known |= _stored(target)
                found |= _looked_up([*inner, *other], known)
            case ast.While(test, inner, other) | ast.If(test, inner, other):
                found |= _loaded(test) - known
                found |= _looked_up([*inner, *other], known)
            case ast.With(items, inner):
                for item in items:
                    found |= _loaded(item.context_expr) - known
                    known |= _stored(item)
                found |= _looked_up(inner, known)
            case ast.Try(inner, handlers, other, last):
                for handler in handlers:
                    found |= (_loaded(handler.type) if handler.type else set()) - known
                    known |= {handler.name} if handler.name else set()
                found |= _looked_up([*inner, *(each for one in handlers for each in one.body), *other, *last], known)
            case ast.FunctionDef(name) | ast.ClassDef(name):
                known.add(name)  # it may call itself
                found |= _loaded(statement) - _stored(statement) - known
            case ast.AugAssign(ast.Name(name)):
                found |= ({name} | _loaded(statement)) - known
            case _:
                found |= _loaded(statement) - known
                known |= _stored(statement)
    return found


def _loaded(node: ast.AST) -> set[str]:
    """The names that a piece of code looks up, but for what its comprehensions and functions bind themselves."""
    own: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.comprehension):
            own |= _stored(inner.target)
        elif isinstance(inner, ast.arg):
            own.add(inner.arg)
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load)}
    return names - own


def _stored(node: ast.AST) -> set[str]:
    """The names that a piece of code binds, imports and definitions included."""
    names: set[str] = set()
    for inner in ast.walk(node):
        match inner:
            case ast.Name(name, ast.Store()) | ast.FunctionDef(name) | ast.ClassDef(name):
                names.add(name)
            case ast.alias(name, other):
                names.add((other or name).partition(".")[0])
    return names


def _base(node: ast.expr) -> set[str]:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def needed_cells(notebook: NotebookNode, wanted: Iterable[int]) -> list[int]:
    """The numbers of the code cells that must be run so that some cells can be, these included, in order.

    For each name that a cell uses these are the last cell above it that binds the name, and those after that one that
    change what it stands for; for a name that a function uses, and that is bound only below it, the first one there.
    What a call changes in its arguments is not seen; that the cells run is tested.

    Args:
        notebook: a chapter.
        wanted: the numbers of cells, from 0; those of Markdown cells are passed over.
    """
    code = {number: names_of(cell.source) for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"}
    modules = frozenset().union(*(names.imported for names in code.values()))
    found: set[int] = set()
    waiting = [number for number in wanted if number in code]
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        found.add(number)
        for name in code[number].used:
            above = [other for other in code if other < number]
            binding = max((other for other in above if name in code[other].bound), default=None)
            if binding is None:
                binding = min((other for other in code if other > number and name in code[other].bound), default=None)
            if binding is not None:
                waiting.append(binding)
                waiting += [other for other in above if other > binding and name in code[other].changed - modules]
    return sorted(found)


def excerpt(notebook: NotebookNode, chosen: Container[str], minutes: int, elsewhere: str) -> NotebookNode:
    """A chapter's opening and some of its parts, with the code of the others that these need, folded.

    Args:
        notebook: the chapter.
        chosen: the titles of the parts to keep.
        minutes: how long they take; stands at the top in the place of the chapter's own time.
        elsewhere: the address at which the other chapters are, to which links lead.
    """
    found = parts(notebook)
    kept = [part for part in found if part is found[0] or part.title in chosen]
    wanted = {part.start + offset for part in kept for offset in range(len(part.cells))}
    needed = set(needed_cells(notebook, wanted))
    result = copy.deepcopy(notebook)
    cells: list[NotebookNode] = []
    left_out: list[Part] = []
    for part in found:
        lead, own = _before_and_from_heading(part)
        if part not in kept:
            if lead and not left_out:
                cells.append(new_markdown_cell(lead, id=f"end-{part.start}"))
            left_out.append(part)
            continue
        cells += _what_is_needed(left_out, needed)
        first, *others = copy.deepcopy(list(part.cells))
        first.source = own if left_out else first.source
        cells += [first, *others]
        left_out = []
    result.cells = cells
    cells[0].source = _TIME.sub(f"**Time in this workshop:** {minutes} minutes. ", cells[0].source)
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = _CHAPTER_LINK.sub(rf"]({elsewhere}/\1)", cell.source)
    return result


def _before_and_from_heading(part: Part) -> tuple[str, str]:
    """The text of a part's first cell above its heading, which ends what came before, and that from the heading on."""
    source = part.cells[0].source
    at = source.find(f"# {part.title}")
    at = source.rfind("\n", 0, at) + 1 if at > 0 else 0
    return source[:at].strip(), source[at:]


def _what_is_needed(left_out: list[Part], needed: set[int]) -> list[NotebookNode]:
    """Of parts that are left out, their titles, and the code that what follows needs, folded and without outputs."""
    titles = list(dict.fromkeys(part.title.partition(", continued")[0] for part in left_out))
    code = [copy.deepcopy(cell) for part in left_out for number, cell in enumerate(part.cells, start=part.start)
            if number in needed]
    if not titles:
        return []
    for cell in code:
        cell.metadata["jupyter"] = NotebookNode(source_hidden=True)
        cell.outputs, cell.execution_count = [], None
    rest = " Run the folded cells below: what follows needs them." if code else ""
    note = new_markdown_cell(f"*Left out here:* {'; '.join(titles)}.{rest}", id=f"before-{left_out[-1].start}")
    return [note, *code]


def for_learners(notebook: NotebookNode) -> NotebookNode:
    """A copy in which what is typed together is still to be typed, and nothing has been run."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if is_live(cell):
                cell.source = TYPED_TOGETHER
        if mark_of(cell):
            del cell.metadata[MARK]  # what an instructor says is not for learners
    return notebook
