"""The texts in a cell's code that a reader sees; code_writing.py writes the same code with others.

Seen is, by rule: every comment, every docstring, and every string that is printed or stands under a picture (an
argument of SHOWING, also inside a list, a sum or an `if`), or says why something failed. These need a translation. Any
other string with words in it, such as a prompt, a list of labels or an example, may have one: what the model is told is
part of a chapter, and some chapters are better with a Chinese prompt. Never touched are keys in brackets, unless they
are labels of the chapter's own dictionaries, what is compared with `==` or `in`, and single words handed to a function,
for these are names.

A string's placeholders are part of its text, as in an f-string. A translation may put them in another order, and may
leave out one that only chooses between words ("" or "s"); otherwise the code stays, token for token, what it was.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass

SHOWING = {"HTML", "Markdown", "display", "expect", "print", "show", "show_figure"}
_WORD = re.compile(r"[^\W\d_]{2}")
_WORDS = re.compile(r"[^\W\d_]{2}[^\n]* [^\W\d_]{2}|[\u3400-\u9fff]")
_NAME = re.compile(r"[\w./:*-]*[._/\d*][\w./:*-]*|-.*")  # "qwen3-0.6b", "*.json", "max_autotune", "--quiet"
_NO_TEXT = re.compile(r"noqa\b|type:|pragma:")
TITLE = "@title "


@dataclass(frozen=True)
class Text:
    """One text in a piece of code.

    Attributes:
        message: what it says; of an f-string with its placeholders, `{` standing for itself doubled.
        kind: "comment", "docstring", "string" or "f-string".
        needed: whether a reader sees it for sure, so that it must be translated.
        start, end: where it stands in the code, in characters.
        depth: how many brackets are open where it begins.
    """

    message: str
    kind: str
    needed: bool
    start: int
    end: int
    depth: int = 0


def texts(source: str, labels: Collection[str] = ()) -> list[Text]:
    """The texts of a cell, from top to bottom. Magics (`%`, `!`) are passed over.

    Args:
        source: the code.
        labels: keys in brackets that are texts, too: see `labels`.
    """
    plain = without_magics(source)
    place = _Places(plain)
    tokens = list(tokenize.generate_tokens(io.StringIO(plain).readline))
    found = [*_comments(plain, tokens, place), *_strings(ast.parse(plain), tokens, place, labels)]
    return sorted(found, key=lambda text: text.start)


def labels(source: str) -> set[str]:
    """The keys of the dictionaries that a cell writes down: what is read by such a key must follow a translation."""
    keys = [key for node in ast.walk(ast.parse(without_magics(source))) if isinstance(node, ast.Dict)
            for key in node.keys]
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def without_magics(source: str) -> str:
    """The same code, spaces in the place of its magics."""
    return re.sub(r"(?m)^\s*[%!].*$", lambda magic: " " * len(magic.group()), source)


def faults(text: Text, translation: str) -> Iterator[str]:
    """What is wrong with a translation of a text of code: one sentence each."""
    if text.kind == "docstring" and ('"""' in translation or "\\" in translation):
        yield 'a docstring may hold neither """ nor a backslash.'
    if text.kind == "comment" and "\n" in translation and "\n" not in text.message:
        yield "a comment is one line here: it is broken into several by itself."
    if text.kind != "f-string":
        return
    try:
        told = _placeholders(translation)
    except ValueError as error:
        yield str(error)
        return
    asked = _placeholders(text.message)
    for missing in sorted(set(asked) - set(told)):
        if not asked[missing]:
            yield f"the placeholder {missing} is missing."
    for added in sorted(set(told) - set(asked)):
        yield f"the placeholder {added} is not in the English text."


class _Places:
    """From the lines and columns of `ast` (bytes) and `tokenize` (characters) to one number."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._lines = source.splitlines(keepends=True) or [""]
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def characters(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def bytes(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def _comments(source: str, tokens: list[tokenize.TokenInfo], place: _Places) -> Iterator[Text]:
    """Comments; several lines with nothing else in them, one below the other, are one text."""
    blocks: list[list[tokenize.TokenInfo]] = []
    for token in (token for token in tokens if token.type == tokenize.COMMENT):
        alone = not token.line[:token.start[1]].strip()
        last = blocks[-1][-1] if blocks else None
        if (alone and last and not last.line[:last.start[1]].strip()
                and (last.start[0] + 1, last.start[1]) == token.start):
            blocks[-1].append(token)
        else:
            blocks.append([token])
    for block in blocks:
        lines = [token.string.removeprefix("#").removeprefix(" ").removeprefix(TITLE) for token in block]
        message = ("\n" if any(line[:1] == " " for line in lines) else " ").join(lines)
        if _WORD.search(message) and not _NO_TEXT.match(message):
            yield Text(message, "comment", True, place.characters(*block[0].start), place.characters(*block[-1].end))


def _strings(tree: ast.Module, tokens: list[tokenize.TokenInfo], place: _Places,
             labels: Collection[str]) -> Iterator[Text]:
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    inside = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
              if part is not node}
    docstrings = {node.body[0].value for node in ast.walk(tree)
                  if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None
                  and isinstance(node.body[0], ast.Expr)}
    depths = list(_depths(tokens, place))
    for node in ast.walk(tree):
        if node in inside or not (isinstance(node, ast.JoinedStr)
                                  or isinstance(node, ast.Constant) and isinstance(node.value, str)):
            continue
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = place.bytes(node.lineno, node.col_offset), place.bytes(node.end_lineno, node.end_col_offset)
        depth = next((count for at, count in reversed(depths) if at <= start), 0)
        if node in docstrings:
            yield Text(inspect.cleandoc(str(node.value)), "docstring", True, start, end, depth)
            continue
        kind = "string" if isinstance(node, ast.Constant) else "f-string"
        message = str(node.value) if isinstance(node, ast.Constant) else _message(node, place.source[start:end])
        words = message if isinstance(node, ast.Constant) else "".join(
            part.value for part in node.values if isinstance(part, ast.Constant))
        needed = False if message in labels and _is_key(node, parents[node]) else _is_seen(node, parents, words)
        if needed is not None and _WORD.search(words):
            yield Text(message, kind, needed, start, end, depth)


def _is_key(node: ast.expr, above: ast.AST) -> bool:
    """Whether something is read by this string: in brackets, or by a dictionary's `get` or `pop`."""
    if isinstance(above, ast.Call):
        return (isinstance(above.func, ast.Attribute) and above.func.attr in ("get", "pop") and bool(above.args)
                and node is above.args[0])
    return isinstance(above, ast.Subscript) and node is above.slice


def _depths(tokens: list[tokenize.TokenInfo], place: _Places) -> Iterator[tuple[int, int]]:
    """Where brackets open and close, and how many are open from there on."""
    depth = 0
    for token in tokens:
        if token.type == tokenize.OP and token.string in "()[]{}":
            depth += 1 if token.string in "([{" else -1
            yield place.characters(*token.end), depth


def _is_seen(node: ast.expr, parents: dict[ast.AST, ast.AST], words: str) -> bool | None:
    """True if a reader sees this string, False if perhaps, None if it is a name."""
    below: ast.AST = node
    while (above := parents.get(below)) is not None:
        if isinstance(above, ast.Subscript) and below is above.slice or isinstance(above, ast.Compare):
            return None
        if isinstance(above, ast.IfExp) and below is above.test:
            return None
        if isinstance(above, ast.Call) and below is not above.func:
            name = ast.unparse(above.func).rpartition(".")[2]
            if name in SHOWING or name.endswith("Error"):
                return True
            return False if _WORDS.search(words) else None
        if isinstance(above, ast.Assert):
            return True
        if isinstance(above, ast.stmt):
            return None if _NAME.fullmatch(words) else False
        below = above
    return None


def _message(node: ast.JoinedStr, source: str) -> str:
    """What an f-string says, its placeholders as they are written, unless that would not fit between double quotes."""
    parts = [_part(part) for part in node.values]
    holders = [place for place, part in enumerate(node.values) if isinstance(part, ast.FormattedValue)]
    try:
        written = [piece for piece in pieces(source) if is_placeholder(piece)]
    except ValueError:  # a brace in a neighbour that is no f-string
        written = []
    if len(written) == len(holders):
        for place, piece in zip(holders, written):
            if '"' not in piece and "\\" not in piece and "\n" not in piece:
                parts[place] = piece
    return "".join(parts)


def _part(part: ast.expr) -> str:
    """A part of an f-string, in one way of writing."""
    if isinstance(part, ast.Constant):
        return str(part.value).replace("{", "{{").replace("}", "}}")
    assert isinstance(part, ast.FormattedValue)
    value = ast.unparse(part.value)
    conversion = "" if part.conversion == -1 else "!" + chr(part.conversion)
    spec = "" if part.format_spec is None else ":" + "".join(map(_part, part.format_spec.values))  # type: ignore[attr-defined]
    return "{" + (" " if value[0] == "{" else "") + value + conversion + spec + "}"


def pieces(message: str) -> Iterator[str]:
    """An f-string's text cut into placeholders, which begin with a single brace, and what stands between them."""
    start = position = 0
    while position < len(message):
        if message[position:position + 2] in ("{{", "}}"):
            position += 2
        elif message[position] == "}":
            raise ValueError("a } stands alone: write it twice.")
        elif message[position] == "{":
            if position > start:
                yield message[start:position]
            end = _closing_brace(message, position)
            yield message[position:end]
            start = position = end
        else:
            position += 1
    if position > start:
        yield message[start:]


def _closing_brace(message: str, start: int) -> int:
    depth, quote = 0, ""
    for position in range(start, len(message)):
        character = message[position]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "{[(":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if not depth:
                return position + 1
    raise ValueError("a { is not closed: write it twice, or close the placeholder.")


def is_placeholder(piece: str) -> bool:
    return piece[0] == "{" and piece[:2] != "{{"


def _placeholders(message: str) -> dict[str, bool]:
    """The placeholders of a text, the words in them left out, and whether each only chooses between words."""
    found = {}
    for piece in filter(is_placeholder, pieces(message)):
        if '"' in piece or "\\" in piece:
            raise ValueError(f"the placeholder {piece} holds a double quote or a backslash.")
        try:
            part = ast.parse(f'f"{piece}"', mode="eval").body
        except SyntaxError:
            raise ValueError(f"the placeholder {piece} is no Python.") from None
        words = [node for node in ast.walk(part) if isinstance(node, ast.IfExp)
                 for node in (node.body, node.orelse) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        for word in words:
            word.value = ""
        assert isinstance(part, ast.JoinedStr)
        found[_part(part.values[0])] = bool(words)
    return found
