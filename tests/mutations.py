"""Small changes of a function's source, one at a time: what a check of an exercise must notice.

A mutation is named by the line that it changes, before and after, as Python writes a syntax tree out:

    `return weights * 1.2 <= free` to `return weights * 1.2 < free`

So a name stays as it is when code moves, and is gone when the line is written anew. Of a compound statement the name
shows the first line alone. Where two changes have one name, the second carries " (2)".
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult, ast.FloorDiv),
    ast.FloorDiv: (ast.Div, ast.Mod), ast.Mod: (ast.FloorDiv,), ast.Pow: (ast.Mult,), ast.BitOr: (ast.BitAnd,),
    ast.BitAnd: (ast.BitOr,),
}
_OTHER_FUNCTIONS = {
    "max": "min", "min": "max", "amax": "amin", "amin": "amax", "argmax": "argmin", "any": "all", "all": "any",
    "ceil": "floor", "floor": "ceil", "int": "round", "round": "int", "cos": "sin", "sin": "cos", "triu": "tril",
    "tril": "triu", "softmax": "log_softmax", "log_softmax": "softmax", "index": "rindex", "split": "rsplit",
    "cumsum": "cumprod", "append": "insert", "log": "log2", "sum": "mean", "mean": "sum",
}
_SYMMETRIC = {"max", "min", "isclose"}
_IGNORED_METHODS = {"close", "item"}  # leaving these out changes nothing but types


@dataclass(frozen=True)
class Mutation:
    """A changed function.

    Args:
        name: what was changed, see above.
        source: the whole function, changed.
    """

    name: str
    source: str


def mutations(source: str) -> Iterator[Mutation]:
    """Every change of a function's source, its docstring, annotations and decorators excepted.

    Args:
        source: of one function.
    """
    seen: dict[str, int] = {}
    known = {ast.unparse(_bare(ast.parse(source)))}
    for name, tree in _changed(_bare(ast.parse(source))):
        changed = ast.unparse(ast.fix_missing_locations(tree))
        if changed in known or not _compiles(changed):
            continue
        known.add(changed)
        seen[name] = seen.get(name, 0) + 1
        yield Mutation(name if seen[name] == 1 else f"{name} ({seen[name]})", changed)


def _compiles(source: str) -> bool:
    """Whether Python takes a source; a `break` that has lost its loop it does not."""
    try:
        compile(source, "mutation", "exec")
    except SyntaxError:
        return False
    return True


def _bare(tree: ast.Module) -> ast.Module:
    """Without docstrings and annotations, which no check can see."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for argument in (*node.args.args, *node.args.kwonlyargs):
                argument.annotation = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return tree


def _changed(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """The name of each change, and the tree with it."""
    [function] = tree.body
    assert isinstance(function, ast.FunctionDef)
    yield from _kept_arguments(function)
    yield from _exchanged_arguments(function)
    yield from _kept_state(function)
    for place in [node for node in ast.walk(function) if isinstance(node, ast.stmt)]:
        for change in _changes_of_statement(place):
            yield _apply(tree, place, change)
        for number, node in enumerate(_own_expressions(place)):
            for new in _changes_of_expression(node):
                yield _replace(tree, place, number, new)


# ---- Whole statements ------------------------------------------------------------------------------------


def _changes_of_statement(place: ast.stmt) -> Iterator[list[ast.stmt]]:
    """What may stand instead of a statement."""
    if isinstance(place, (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise, ast.Delete)):
        yield [ast.Pass()]
    if isinstance(place, ast.AugAssign):
        yield [ast.Assign([place.target], place.value)]
    if isinstance(place, ast.Break):
        yield [ast.Pass()]
    if isinstance(place, ast.Continue):
        yield [ast.Break()]
        yield [ast.Pass()]
    if isinstance(place, ast.Return) and place.value is None:
        yield [ast.Pass()]
    if isinstance(place, ast.If):
        yield place.body
        yield place.orelse or [ast.Pass()]
    if isinstance(place, ast.With):
        yield place.body
    if isinstance(place, ast.While):
        yield [ast.If(place.test, place.body, [])]


def _apply(tree: ast.Module, place: ast.stmt, change: list[ast.stmt]) -> tuple[str, ast.Module]:
    marked = copy.deepcopy(tree)
    target = _twin(tree, marked, place)
    for node in ast.walk(marked):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list) and target in statements:
                at = statements.index(target)
                statements[at:at + 1] = copy.deepcopy(change)
    after = "nothing" if isinstance(change[0], ast.Pass) else f"`{_line(change[0])}`"
    return f"`{_line(place)}` to {after}", marked


# ---- Expressions -----------------------------------------------------------------------------------------


def _own_expressions(place: ast.stmt) -> list[ast.AST]:
    """The expressions of a statement, without those of statements inside it."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(ast.iter_child_nodes(place))
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, (ast.stmt, ast.JoinedStr)):
            found.append(node)
            waiting.extend(ast.iter_child_nodes(node))
    return found


def _changes_of_expression(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand instead of an expression."""
    for kind, changes in _BY_KIND.items():
        if isinstance(node, kind):
            yield from changes(node)


def _of_comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for at, operator in enumerate(node.ops):
        for other in _COMPARISONS[type(operator)]:
            yield ast.Compare(node.left, [*node.ops[:at], other(), *node.ops[at + 1:]], node.comparators)


def _of_operation(node: ast.BinOp) -> Iterator[ast.AST]:
    for other in _OPERATORS.get(type(node.op), ()):
        yield ast.BinOp(node.left, other(), node.right)
    if not isinstance(node.op, (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr)):
        yield ast.BinOp(node.right, node.op, node.left)


def _of_constant(node: ast.Constant) -> Iterator[ast.AST]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value * 1.5 + 0.25)
    elif isinstance(node.value, (str, bytes)) and node.value:
        yield ast.Constant(node.value[:-1])


def _of_logic(node: ast.BoolOp) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for at in range(len(node.values)):
        rest = [*node.values[:at], *node.values[at + 1:]]
        yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if other := _OTHER_FUNCTIONS.get(name):
        func: ast.expr = (ast.Name(other, ast.Load()) if isinstance(node.func, ast.Name)
                          else ast.Attribute(node.func.value, other, ast.Load()))  # type: ignore[attr-defined]
        yield ast.Call(func, node.args, node.keywords)
    for at in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, [*node.keywords[:at], *node.keywords[at + 1:]])
    if len(node.args) > 1:
        if name not in _SYMMETRIC:
            yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
        yield ast.Call(node.func, node.args[:-1], node.keywords)
        if isinstance(node.func, ast.Name) and name in ("max", "min"):
            yield from node.args
    elif isinstance(node.func, ast.Attribute) and not node.args and name not in _IGNORED_METHODS:
        yield node.func.value  # x.abs() to x


def _of_choice(node: ast.IfExp) -> Iterator[ast.AST]:
    yield node.body
    yield node.orelse


def _of_filter(node: ast.comprehension) -> Iterator[ast.AST]:
    for at in range(len(node.ifs)):
        yield ast.comprehension(node.target, node.iter, [*node.ifs[:at], *node.ifs[at + 1:]], node.is_async)


def _of_sign(node: ast.UnaryOp) -> Iterator[ast.AST]:
    yield node.operand


def _of_slice(node: ast.Slice) -> Iterator[ast.AST]:
    if node.lower is not None:
        yield ast.Slice(None, node.upper, node.step)
    if node.upper is not None:
        yield ast.Slice(node.lower, None, node.step)


def _of_sequence(node: ast.Tuple | ast.List) -> Iterator[ast.AST]:
    if isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        for at in range(len(node.elts) - 1):
            yield type(node)([*node.elts[:at], node.elts[at + 1], node.elts[at], *node.elts[at + 2:]], node.ctx)


_BY_KIND: dict[type[ast.AST] | tuple[type[ast.AST], ...], Callable[..., Iterator[ast.AST]]] = {
    ast.Compare: _of_comparison, ast.BinOp: _of_operation, ast.Constant: _of_constant, ast.BoolOp: _of_logic,
    ast.Call: _of_call, ast.IfExp: _of_choice, ast.comprehension: _of_filter, ast.UnaryOp: _of_sign,
    ast.Slice: _of_slice, (ast.Tuple, ast.List): _of_sequence,
}


def _replace(tree: ast.Module, place: ast.stmt, number: int, new: ast.AST) -> tuple[str, ast.Module]:
    changed = copy.deepcopy(tree)
    statement = _twin(tree, changed, place)
    target = _own_expressions(statement)[number]
    for parent in ast.walk(statement):
        for field, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, field, copy.deepcopy(new))
            elif isinstance(value, list) and any(entry is target for entry in value):
                setattr(parent, field, [copy.deepcopy(new) if entry is target else entry for entry in value])
    return f"`{_line(place)}` to `{_line(statement)}`", changed


# ---- The function as a whole -----------------------------------------------------------------------------


def _kept_arguments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.Module]]:
    """An argument is ignored: it keeps the value that it had in the first call."""
    for argument in (*function.args.args, *function.args.kwonlyargs):
        name = argument.arg
        yield f"`{name}` keeps its first value", _before(function, f"{name} = _kept.setdefault({name!r}, {name})")


def _exchanged_arguments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.Module]]:
    """Two neighbouring arguments are taken for each other."""
    names = [argument.arg for argument in function.args.args]
    for one, other in zip(names, names[1:]):
        yield f"`{one}` and `{other}` are exchanged", _before(function, f"{one}, {other} = ({other}, {one})")


def _kept_state(function: ast.FunctionDef) -> Iterator[tuple[str, ast.Module]]:
    """A reset is left out: what a line of the function makes anew, a list or an object, is kept for the next call."""
    for at, statement in enumerate(function.body):
        if (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
                and isinstance(statement.value, (ast.List, ast.Dict, ast.Set, ast.Call))):
            changed = copy.deepcopy(function)
            name = ast.Constant(statement.targets[0].id)
            changed.body[at].value = ast.Call(  # type: ignore[attr-defined]
                ast.Attribute(ast.Name("_kept", ast.Load()), "setdefault", ast.Load()), [name, statement.value], [])
            yield f"`{_line(statement)}` is done in the first call alone", _with_memory(changed)


def _before(function: ast.FunctionDef, line: str) -> ast.Module:
    changed = copy.deepcopy(function)
    changed.body[:0] = ast.parse(line).body
    return _with_memory(changed)


def _with_memory(function: ast.FunctionDef) -> ast.Module:
    """The function, and above it the dictionary in which it keeps what it should not."""
    return ast.Module([*ast.parse("_kept = {}").body, function], [])


# ---- Names and places ------------------------------------------------------------------------------------


def _twin(tree: ast.AST, other: ast.AST, place: ast.stmt) -> ast.stmt:
    """The statement of a copied tree that stands where `place` stands in the original."""
    for node, twin in zip(ast.walk(tree), ast.walk(other)):
        if node is place:
            assert isinstance(twin, ast.stmt)
            return twin
    raise LookupError("The statement is not in this tree.")


def _line(place: ast.AST) -> str:
    """A statement as Python writes it, of a compound one the first line."""
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(place))).splitlines()[0]
