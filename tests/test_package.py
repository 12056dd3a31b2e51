"""What `course_utils` itself offers, and that it imports PyTorch only when something of it is asked for."""

from __future__ import annotations

import subprocess
import sys
from inspect import getmodule

import pytest

import course_utils
from course_utils import public


def run(code: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_it_imports_nothing():
    modules = ("course_utils", "course_utils.cli", "course_utils.exercises", "course_utils.exercises.progress_table",
               "course_utils.workshop.learners", "course_utils.workshop.copies")
    code = f"import sys, {', '.join(modules)}\nprint([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("name", public.__all__)
def test_every_name_is_that_of_its_module(name):
    value = getattr(course_utils, name)
    assert value is getattr(public, name) and name in dir(course_utils)
    module = getmodule(value)
    assert module is None or module.__name__.startswith("course_utils.")


def test_all_of_it_can_be_had_at_once():
    assert run("from course_utils import *\nprint(KVCache.__name__, len(GREEDY.__dict__) > 0)") == "KVCache True"


def test_a_module_can_be_had_without_importing_it_by_name():
    assert run("import course_utils\nprint(course_utils.errors.InputError.__name__)") == "InputError"


@pytest.mark.parametrize("name", ["nothing", "__nothing__", "Path"])
def test_other_names_are_none_of_its(name):
    with pytest.raises(AttributeError, match=f"module 'course_utils' has no attribute '{name}'"):
        getattr(course_utils, name)
    with pytest.raises(ImportError):
        exec(f"from course_utils import {name}")
