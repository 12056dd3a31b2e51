"""Which tests `pytest -m EXPRESSION` asks for by name, among those that need what few machines have.

pytest takes whatever makes an expression true, so that `-m "not slow"` would start the hub's gigabytes and a browser.
Here a test with one of the markers below runs only when the expression names that marker, and not behind a `not`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

ASKED_FOR_BY_NAME = frozenset({"browser", "site", "jupyterhub", "hub", "gpu", "peers", "stick"})


def asked_for(expression: str) -> set[str]:
    """The names of an expression of -m that stand behind no `not`, or behind an even number of them.

    Args:
        expression: what follows -m, or "". pytest itself refuses what is no expression; here it asks for nothing.
    """
    def names(node: ast.AST, negated: bool) -> Iterable[str]:
        if isinstance(node, ast.Name) and not negated:
            yield node.id
        negated ^= isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
        for child in ast.iter_child_nodes(node):
            yield from names(child, negated)

    try:  # its grammar is a part of Python's
        return set(names(ast.parse(expression.strip(), mode="eval"), negated=False))
    except SyntaxError:
        return set()
