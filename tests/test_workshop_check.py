"""Before a workshop: what is looked at on a learner's computer, the file that is sent, and the instructor's table."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import tomllib
import venv
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from course_utils import files, host_memory
from course_utils.cli import main
from course_utils.errors import InputError
from course_utils.loading import load_model
from course_utils.report import Finding
from course_utils.workshop import computer
from course_utils.workshop.agendas import AGENDAS
from course_utils.workshop.computer import compare_versions, generate_five, look_for_workshop, start_kernel
from course_utils.workshop.readiness import Readiness, new_readiness, read_readiness, write_readiness
from course_utils.workshop.readiness_table import readiness_table

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
FINE = Finding("Python", "3.12.1")
BROKEN = Finding("Notebook kernel", "does not start (RuntimeError: it died)", "problem", "Install it again.")


def readiness(*rows: Finding, name: str = "", seconds: float | None = 0.004) -> Readiness:
    return new_readiness("half-a-day", rows or (FINE,), seconds, name)


def kernel(folder: Path, monkeypatch: pytest.MonkeyPatch, *argv: str, **environment: str) -> None:
    """Let another kernel be found under the name that notebooks ask for."""
    specification = folder / "kernels" / "python3"
    specification.mkdir(parents=True)
    (specification / "kernel.json").write_text(json.dumps(
        {"argv": argv, "display_name": "x", "language": "python", "env": environment}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder))


# What is looked at


def test_this_computer(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = tmp_path / "ann.json"
    status = main(["check", "--workshop", str(path), "--for", "ninety-minutes", "--name", "Ann"])
    found = read_readiness(path)
    rows = {row.what: row for row in found.rows}
    assert (found.name, found.agenda, status) == ("Ann", "ninety-minutes", 1 if found.problems else 0)
    assert {"Python", "PyTorch", "Threads for the workshop"} < rows.keys() and len(rows) == len(found.rows)
    assert not [row for row in found.rows if "could not be found out" in row.value]
    assert all(rows[what].status == "OK" for what in ("Chapters", "Notebook kernel"))
    assert "5, 6 are here" in rows["Chapters"].value and 'Once upon a time' in rows["Five tokens"].value
    assert found.seconds_per_token is not None
    printed = capsys.readouterr().out
    assert all(row.value in printed for row in found.rows) and "send it to your instructor" in printed


def test_each_agenda_is_of_the_chapters_that_an_instructor_gets() -> None:
    paths = {path.stem.replace("_", "-"): tomllib.loads(path.read_text(encoding="utf-8"))
             for path in (NOTEBOOKS / "workshop" / "paths").glob("*.toml")}
    assert {name: set(agenda.chapters) for name, agenda in AGENDAS.items()} == {
        name: {block["chapter"] for day in path["days"] for block in day["blocks"] if "chapter" in block}
        for name, path in paths.items()}
    for agenda in AGENDAS.values():
        assert computer._chapters(agenda, NOTEBOOKS).status == "OK"
        assert list(agenda.chapters) == sorted(set(agenda.chapters))


@pytest.mark.parametrize("folder", [None, NOTEBOOKS / "images"])
def test_notebooks_that_are_not_here(folder) -> None:
    row = computer._chapters(AGENDAS["ninety-minutes"], folder)
    assert (row.status, row.value) == ("problem", "missing: 5, 6")


def test_a_kernel_of_another_python(tmp_path, monkeypatch) -> None:
    venv.create(tmp_path / "other", symlinks=os.name != "nt")
    python = tmp_path / "other" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # It finds all that this Python finds.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOKS.parent), *site.getsitepackages()]))
    kernel(tmp_path, monkeypatch, str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}")
    row = start_kernel(NOTEBOOKS)
    assert row.status == "problem" and str(tmp_path / "other") in row.value and "ipykernel install" in row.remedy


def test_a_kernel_that_dies(tmp_path, monkeypatch) -> None:
    kernel(tmp_path, monkeypatch, sys.executable, "-c", "raise SystemExit(1)")
    row = start_kernel(NOTEBOOKS)
    assert row.status == "problem" and row.value.startswith("does not start (RuntimeError: ")


def test_a_kernel_that_finds_another_package_of_that_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "course_utils.py").write_text("")
    kernel(tmp_path, monkeypatch, sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}",
           PYTHONPATH=str(tmp_path))
    row = start_kernel(NOTEBOOKS)
    assert row.status == "problem" and "cannot import the course (AttributeError" in row.value


def test_no_jupyter(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "jupyter_client.manager", None)
    assert start_kernel(NOTEBOOKS).status == "problem"


def test_a_pytorch_that_cannot_be_loaded_is_the_one_row(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "course_utils.environment", None)
    (row,), seconds = look_for_workshop(AGENDAS["half-a-day"], NOTEBOOKS)
    assert (row.what, row.status, seconds) == ("PyTorch", "problem", None)
    assert row.value.startswith("cannot be loaded (ModuleNotFoundError: ")


@pytest.mark.parametrize(("version", "status", "said"), [
    (torch.__version__.partition("+")[0], "OK", "1 packages"), ("1.0", "note", "(1.0 was tested)")])
def test_versions(tmp_path, version, status, said) -> None:
    (tmp_path / "constraints.txt").write_text(f"# tested\ntorch=={version}\nno-such-package==1.0\n")
    row = compare_versions(tmp_path / "constraints.txt")
    assert row.status == status and said in row.value and "no-such-package" not in row.value


def test_the_list_of_versions_is_read(monkeypatch) -> None:
    monkeypatch.setattr(computer.importlib.metadata, "version", lambda _: "0")
    lines = (NOTEBOOKS.parent / ".ci" / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert compare_versions(NOTEBOOKS.parent / ".ci" / "constraints.txt").value.count("was tested") == len(pins)
    assert compare_versions(None).status == "note"


def test_generating_leaves_the_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        text, speeds = generate_five(load_model("tiny", device="cpu"))
        assert torch.get_num_threads() == 2 and list(speeds) == [1, 2] and text.startswith("Once upon a ")
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("speeds", "advice"), [
    ({1: 0.003}, "1, as set"), ({1: 0.003, 8: 0.0025}, "1 is recommended"), ({1: 0.003, 8: 0.03}, "1 is recommended"),
    ({1: 0.05, 8: 0.01}, "8 are recommended")])
def test_threads(speeds, advice) -> None:
    row = computer._threads(speeds)
    assert row.value.startswith(advice) and ("OMP_NUM_THREADS=1" in row.remedy) == advice.startswith("1 is")


@pytest.mark.parametrize(("free", "total", "status", "advice"), [
    (7e9, 8e9, "OK", ""), (5e9, 8e9, "note", "COURSE_SMALL=1"), (1e9, 2e9, "problem", "Google Colab")])
def test_memory(monkeypatch, free, total, status, advice) -> None:
    monkeypatch.setattr(host_memory, "available", lambda: free)
    monkeypatch.setattr(host_memory, "total", lambda: total)
    row = computer._memory(AGENDAS["half-a-day"])
    assert row.status == status and advice in row.remedy


def test_slow_and_full(monkeypatch) -> None:
    assert computer._speed("x", {1: 0.2}).status == "note" and computer._speed("x", {1: 0.02}).status == "OK"
    assert computer._disk(replace(AGENDAS["half-a-day"], disk=1e30)).status == "problem"


# The file


def test_what_is_written_is_read(tmp_path) -> None:
    written = readiness(FINE, BROKEN, name="Ann 小船", seconds=None)
    write_readiness(written, tmp_path / "ann.json")
    assert read_readiness(tmp_path / "ann.json") == written and written.problems == [BROKEN]


SECRETS = {"HF_TOKEN": "hf_abcdefgh", "MY_PASSWORD": "hunter22", "api_key": "0123456789"}


@pytest.mark.parametrize("text", [
    *SECRETS.values(), "https://ann:hunter22@mirror.example/x", "'https://ann:hunt...'", "https://ann:hunter@host:1/",
    "https://hunt3r@host", f"{Path.home()}/somewhere"])
def test_nothing_secret_is_written(tmp_path, monkeypatch, text) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    write_readiness(readiness(Finding("x", f"found {text}", "note", f"do {text}")), tmp_path / "ann.json")
    content = (tmp_path / "ann.json").read_text()
    for secret in (*SECRETS.values(), "hunt", str(Path.home())):
        assert secret not in content
    assert "found " in content


def test_the_hubs_address_with_a_password(tmp_path, monkeypatch) -> None:
    from course_utils import environment

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"https://ann:{'hunter22' * 5}@mirror.example/{'x' * 300}")
    row = environment._hub(check_network=True)
    assert "ann" in row.remedy  # what the learner alone sees
    write_readiness(readiness(row), tmp_path / "ann.json")
    assert "ann" not in (tmp_path / "ann.json").read_text().replace("ann.json", "")


@pytest.mark.parametrize(("change", "said"), [
    (lambda content: "", "is empty"),
    (lambda content: json.dumps(content)[:50], "damaged or cut short"),
    (lambda content: "<html>", "an HTML page"),
    (lambda content: "[" * 100_000, "damaged or cut short"),
    (lambda content: "x" * 2_000_000, "is larger than a computer's check can be"),
    *((lambda content, change=change: json.dumps(content | change), "holds something else than a computer's check")
      for change in ({"format": "course-utils progress"}, {"rows": []}, {"rows": [{"what": "x"}]}, {"rows": 3},
                     {"rows": [{"what": "x", "value": "y", "status": "fine", "remedy": ""}]},
                     {"rows": [{"what": "x", "value": 3, "status": "OK", "remedy": ""}]},
                     {"rows": [{"what": "x", "value": "y" * 3000, "status": "OK", "remedy": ""}]},
                     {"date": "yesterday"}, {"date": 3}, {"name": None}, {"agenda": ["half-a-day"]}, {"more": 1},
                     {"seconds_per_token": "fast"}, {"seconds_per_token": True}, {"seconds_per_token": -1.0},
                     {"seconds_per_token": float("nan")})),
    (lambda content: "[1, 2]", "holds something else"), (lambda content: "3", "holds something else")])
def test_a_file_that_is_none(tmp_path, change, said) -> None:
    write_readiness(readiness(), tmp_path / "ann.json")
    content = json.loads((tmp_path / "ann.json").read_text())
    assert content["format"] == "course-utils readiness"
    (tmp_path / "ann.json").write_text(change(content))
    with pytest.raises(InputError, match=r"^'.*ann.json' .*: have it written again, or give another file\.$") as caught:
        read_readiness(tmp_path / "ann.json")
    assert said in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(InputError, match="cannot be read"):
            read_readiness(path)


def test_something_else_is_not_replaced_and_no_time_is_lost(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(computer, "look_for_workshop", lambda *_: pytest.fail("it looked"))
    (tmp_path / "thesis.json").write_text("mine")
    assert main(["check", "--workshop", str(tmp_path / "thesis.json")]) == 2
    assert main(["check", "--workshop", str(tmp_path / "none" / "ann.json")]) == 2
    assert (tmp_path / "thesis.json").read_text() == "mine" and "Looking" not in capsys.readouterr().out


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "ann.json"
    write_readiness(readiness(name="before"), path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(InputError, match="No space left"):
            write_readiness(readiness(name="after"), path)
    assert read_readiness(path).name == "before" and list(tmp_path.iterdir()) == [path]


# The table


def test_the_table_says_who_needs_help_and_why() -> None:
    note = Finding("Memory for the workshop", "2 GB free", "note", "Close programs.")
    table = readiness_table({"a.json": readiness(FINE, note, name="ann"), "b.json": readiness(BROKEN, name="bob"),
                             "c.json": readiness(FINE, replace(BROKEN, value="another"), seconds=None)})
    lines = table.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["learner", "ready"], ["bob", "NO"], ["c.json", "NO"],
                                                        ["ann", "yes"]]
    assert "4.0" in lines[1] and "Notebook kernel" in lines[1] and "notes: Memory for the workshop" in lines[3]
    assert lines[5] == "1 of 3 are ready. Help: bob, c.json."
    assert lines[7:] == ["Notebook kernel: bob, c.json", f"  Found: {BROKEN.value}", "  Found: another",
                         "  To do: Install it again."]


def test_a_class_that_is_ready() -> None:
    assert readiness_table({"a.json": readiness(name="ann")}).endswith("\n1 of 1 are ready.")


def test_a_stranger_steers_no_terminal() -> None:
    evil = "\x1b[2Jx\n"
    table = readiness_table({evil: readiness(Finding(evil, evil, "problem", evil), name=evil),
                             f"b{evil}": replace(readiness(), agenda=evil)})
    assert "\x1b" not in table and len(table.splitlines()) == 9


def test_the_command_reads_what_it_can(tmp_path, capsys) -> None:
    write_readiness(readiness(name="ann"), tmp_path / "a.json")
    assert main(["check", str(tmp_path / "a.json")]) == 0
    write_readiness(readiness(BROKEN, name="bob"), tmp_path / "b.json")
    assert main(["check", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 1
    capsys.readouterr()
    assert main(["check", str(tmp_path / "a.json"), str(tmp_path / "none.json")]) == 2
    printed = capsys.readouterr()
    assert "ann" in printed.out and printed.err.startswith("course-utils: ") and "none.json" in printed.err


@pytest.mark.parametrize("arguments", [["--name", "Ann"], ["--for", "half-a-day"], ["--workshop", "x.json", "y.json"]])
def test_options_that_do_not_go_together(arguments, capsys) -> None:
    assert main(["check", *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_table_comes_without_pytorch(tmp_path) -> None:
    write_readiness(readiness(name="ann"), tmp_path / "a.json")
    code = ("import sys; from course_utils.cli import main; status = main(['check', sys.argv[1]]); "
            "sys.exit(status or 'torch' in sys.modules)")
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], cwd=NOTEBOOKS.parent,
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("learner")
