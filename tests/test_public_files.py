"""What a public repository has beside its code: it agrees with the project, and its readers can read it."""

from __future__ import annotations

import configparser
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
FORMS = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read_yaml(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def test_the_citation_names_this_version_and_licence() -> None:
    citation = read_yaml(REPOSITORY / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # all that the format requires
    assert (citation["version"], citation["license"]) == (PROJECT["project"]["version"], PROJECT["project"]["license"])


def test_there_is_a_form_for_the_text_and_one_for_the_code() -> None:
    assert [path.stem for path in FORMS] == ["chapter", "package"]


@pytest.mark.parametrize("path", FORMS, ids=[path.stem for path in FORMS])
def test_a_form_asks_each_thing_once_and_requires_something(path: Path) -> None:
    # https://docs.github.com/communities/using-templates-to-encourage-useful-issues-and-pull-requests
    form = read_yaml(path)
    assert form.keys() == {"name", "description", "body"}
    for field in form["body"]:
        assert field["type"] in ("input", "textarea") and field["attributes"]["label"]
        assert field.keys() <= {"type", "id", "attributes", "validations"}
    for names in ([field["id"] for field in form["body"]], [field["attributes"]["label"] for field in form["body"]]):
        assert len(set(names)) == len(names)
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_before_a_commit_run_the_linters_of_ci() -> None:
    (repository,) = read_yaml(REPOSITORY / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local" and {hook["language"] for hook in repository["hooks"]} == {"system"}
    step = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8").split("    linters)\n")[1].split(";;")[0]
    commands = [line.strip() for line in step.splitlines()][2:-1]  # after those that install
    assert [hook["entry"] for hook in repository["hooks"]] == commands == ["ruff check .", "mypy"]


def test_editors_are_told_the_width_that_the_linter_allows() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[head]\n" + (REPOSITORY / ".editorconfig").read_text(encoding="utf-8"))
    assert parser["*.py"]["max_line_length"] == str(PROJECT["tool"]["ruff"]["line-length"])
