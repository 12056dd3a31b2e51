"""The environment table: every row on this machine, and what it says on machines that lack something."""

from __future__ import annotations

import email.message
import http.server
import importlib.metadata
import socket
import sys
import threading
from html.parser import HTMLParser

import pytest

from course_utils import environment
from course_utils.environment import environment_report
from course_utils.report import EnvironmentReport, Finding


@pytest.fixture(autouse=True)
def local_and_online(monkeypatch):
    for name in ("COURSE_DEVICE", "COLAB_RELEASE_TAG", "LIGHTNING_CLOUDSPACE_ID", "CODESPACES",
                 "BINDER_SERVICE_HOST", "JUPYTERHUB_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


@pytest.fixture
def hub(monkeypatch):
    """A web server on this machine in the hub's place; set `.answer` to another status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            server.methods.append(self.command)
            self.send_response(server.answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.setattr(environment, "HUB_TIMEOUT", 60.0)  # a busy machine is no reason to fail
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.methods = 200, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_report_has_every_row(hub):
    report = environment_report()
    names = [row.what for row in report.rows]
    assert names[:7] == ["Python", "Platform", "PyTorch", "Packages", "Notebook packages", "Device", "Memory"]
    assert {"Disk", "Models that fit", "C++ compiler", "Bundled models", "Model hub"} < set(names)
    assert len(names) == len(set(names))
    assert {row.status for row in report.rows} <= {"OK", "note", "problem"}
    assert all(row.status == "OK" or row.remedy for row in report.rows)
    assert not any("could not be found out" in row.value for row in report.rows)
    assert hub.methods == ["HEAD"]


def test_text_table_is_aligned():
    report = EnvironmentReport((Finding("a", "1"), Finding("longer", "2", "problem", "mend it")))
    lines = str(report).splitlines()
    assert repr(report) == str(report)
    assert lines[0].index("Found") == lines[2].index("1") == lines[3].index("2") == lines[4].index("To do: mend it")
    assert lines[-1] == "Please mend first: longer." == report.summary()
    assert report.problems == [report.rows[1]]


def test_summary_without_problems():
    assert EnvironmentReport((Finding("a", "1"),)).summary() == "Everything the course needs is here."
    assert "Worth reading: b." in EnvironmentReport((Finding("b", "2", "note", "x"),)).summary()


def test_html_has_scoped_headers_words_and_no_markup_of_others():
    page = EnvironmentReport((Finding("C++", "<b>&", "note", "x > y"),))._repr_html_()

    class Reader(HTMLParser):
        scopes, text = [], ""

        def handle_starttag(self, tag, attrs):
            assert tag != "b"
            if tag == "th":
                self.scopes.append(dict(attrs)["scope"])

        def handle_data(self, data):
            self.text += data

    reader = Reader()
    reader.feed(page)
    assert reader.scopes == ["col"] * 4 + ["row"]
    assert all(part in reader.text for part in ("<b>&", "x > y", "note"))
    assert "color" not in page


@pytest.mark.parametrize("look", ["_python", "_memory", "_models", "_disk", "_hub", "_compiler"])
def test_a_row_that_fails_becomes_a_note(monkeypatch, look):
    def fail(*_):
        raise RuntimeError("strange machine")

    monkeypatch.setattr(environment, look, fail)
    report = environment_report(check_network=False)
    assert [row.status for row in report.rows if "strange machine" in row.value] == ["note"]
    assert len(report.rows) >= 12


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 20))
    assert environment._python().status == "problem"


def test_missing_packages(monkeypatch):
    monkeypatch.setattr(environment, "NEEDED_PACKAGES", ("numpy", "no-such-package"))
    row = environment._packages()
    assert (row.status, row.value) == ("problem", "missing: no-such-package")
    assert "pip install no-such-package" in row.remedy


@pytest.mark.parametrize(("variable", "name"), [
    ("COLAB_RELEASE_TAG", "Google Colab"), ("LIGHTNING_CLOUDSPACE_ID", "Lightning Studio"),
    ("CODESPACES", "GitHub Codespaces"), ("BINDER_SERVICE_HOST", "Binder"), ("JUPYTERHUB_USER", "JupyterHub"),
    (None, "local")])
def test_where(monkeypatch, variable, name):
    if variable:
        monkeypatch.setenv(variable, "1")
    assert environment._platform().value.endswith(name)


@pytest.mark.parametrize(("version", "status"), [("7.7.1", "OK"), ("8.1.9", "note")])
def test_widgets_on_colab(monkeypatch, version, status):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "1")
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    assert environment._notebook_packages().status == status


def test_a_device_that_is_not_there_is_a_problem_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "abacus")
    report = environment_report(check_network=False)
    assert "Device" in [row.what for row in report.problems]
    assert "abacus" in str(report)


def test_an_unused_nvidia_gpu_is_a_note(monkeypatch):
    monkeypatch.setattr(environment, "available_devices", lambda: ["cpu"])
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    monkeypatch.setattr(environment.shutil, "which", lambda name: "found" if name == "nvidia-smi" else None)
    assert "NVIDIA" in environment._device().remedy


@pytest.mark.parametrize(("gigabytes", "status", "names"), [
    (1, "note", ["tiny"]), (2, "OK", ["tiny", "Qwen3-0.6B"]), (100, "OK", ["tiny", "Qwen3-0.6B", "Qwen3-32B"])])
def test_models_that_fit(monkeypatch, gigabytes, status, names):
    monkeypatch.setattr(environment, "free_memory", lambda _: int(gigabytes * 1e9))
    row = environment._models()
    assert row.status == status
    assert all(name in row.value for name in names)
    assert ("32B" in row.value) == (gigabytes == 100)


def test_size_of_the_smallest_model(monkeypatch):
    monkeypatch.setattr(environment, "free_memory", lambda _: 2 * 10 ** 9)
    assert "Qwen3-0.6B (1.2 GB)" in environment._models().value  # 596,049,920 parameters of two bytes


@pytest.mark.parametrize(("system", "machine", "macos", "status"), [
    ("Linux", "x86_64", "", "OK"), ("Linux", "aarch64", "", "OK"), ("Windows", "AMD64", "", "OK"),
    ("Darwin", "arm64", "14.0", "OK"), ("Darwin", "arm64", "26.1", "OK"), ("Darwin", "arm64", "13.7.8", "note"),
    ("Darwin", "x86_64", "15.1", "note"), ("Windows", "ARM64", "", "note"), ("Linux", "riscv64", "", "note"),
    ("FreeBSD", "amd64", "", "note")])
def test_a_machine_that_is_not_supported_is_sent_to_colab(monkeypatch, system, machine, macos, status):
    monkeypatch.setattr(environment.platform, "system", lambda: system)
    monkeypatch.setattr(environment.platform, "machine", lambda: machine)
    monkeypatch.setattr(environment.platform, "mac_ver", lambda: (macos, ("", "", ""), machine))
    row = environment._platform()
    assert row.value == f"{f'macOS {macos}' if macos else system}, {machine}, local"
    assert row.status == status and ("Google Colab" in row.remedy) == (status == "note")


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
def test_no_compiler_is_a_note_with_that_systems_remedy(monkeypatch, system):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(environment.platform, "system", lambda: system)
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    row = environment._compiler()
    assert row.status == "note"
    assert "a C++ compiler" in row.value
    assert {"Linux": "apt", "Darwin": "xcode-select", "Windows": "Visual Studio"}[system] in row.remedy


def test_missing_header_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setattr(environment.sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(environment.shutil, "which", lambda _: "g++")
    assert environment._compiler().value == "missing: Python.h"
    (tmp_path / "Python.h").touch()
    assert environment._compiler().status == "OK"


def test_little_disk_space_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10 ** 9}))
    row = environment._disk()
    assert row.status == "note"
    assert "HF_HOME" in row.remedy


@pytest.mark.parametrize("answer", [200, 301, 401, 404])
def test_a_hub_that_answers(hub, answer):
    hub.answer = answer
    assert environment._hub(True).status == "OK"


def test_a_hub_in_trouble(hub):
    hub.answer = 503
    row = environment._hub(True)
    assert row.status == "note"
    assert "503" in row.value


def test_an_address_where_nobody_is(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        row = environment._hub(True)
    assert row.status == "note"
    assert "HF_ENDPOINT" in row.remedy


def test_a_hub_that_keeps_silent_costs_no_more_than_the_timeout(monkeypatch):
    monkeypatch.setattr(environment, "HUB_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert environment._hub(True).status == "note"


def test_something_else_than_a_web_address(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "file:///etc")
    assert "not a web address" in environment._hub(True).remedy


@pytest.mark.parametrize("offline", [True, False])
def test_no_request_when_none_is_wanted(monkeypatch, hub, offline):
    monkeypatch.setenv("HF_HUB_OFFLINE", str(int(offline)))
    assert environment._hub(check_network=offline).status == "note"
    assert hub.methods == []


class TestRepository:
    """Where the course lives, as `course-utils check` says it."""

    @pytest.fixture
    def installed(self, monkeypatch):
        """A way to say with which metadata the package was installed; there is no checkout."""
        monkeypatch.setattr(environment, "PROJECT_FILE", environment.PROJECT_FILE / "nowhere")

        def install(*lines):
            metadata = email.message.Message()
            for line in lines:
                metadata["Project-URL"] = line
            monkeypatch.setattr(importlib.metadata, "metadata", lambda _: metadata)

        return install

    @pytest.mark.parametrize(("address", "status"), [
        ("https://github.com/OWNER/llm-course", "note"), ("https://github.com/ann/course", "OK"),
        ("https://github.com/OWNERS/llm-course", "OK")])
    def test_in_a_checkout(self, monkeypatch, tmp_path, address, status):
        file = tmp_path / "pyproject.toml"
        file.write_text(f'[project]\nname = "course-utils"\n[project.urls]\nRepository = "{address}"\n')
        monkeypatch.setattr(environment, "PROJECT_FILE", file)
        row = environment.repository_row()
        assert row.status == status and row.value.startswith(address)
        assert ("python notebooks/build.py repository https://github.com/" in row.remedy) == (status == "note")

    @pytest.mark.parametrize("text", [
        "[project", "project = 1", "", '[project]\nname = "another"\n[project.urls]\nRepository = "x"\n', b"\xff"])
    def test_another_project_beside_it(self, monkeypatch, tmp_path, installed, text):
        file = tmp_path / "pyproject.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setattr(environment, "PROJECT_FILE", file)
        installed("Homepage, https://a.example", "Repository, https://github.com/ann/course")
        assert environment.repository_row() == Finding("Repository", "https://github.com/ann/course")

    def test_unknown(self, monkeypatch, installed):
        installed("Homepage, https://a.example")
        assert environment.repository_row() == Finding("Repository", "not known")

        def absent(_):
            raise importlib.metadata.PackageNotFoundError

        monkeypatch.setattr(importlib.metadata, "metadata", absent)
        assert environment.repository_row() == Finding("Repository", "not known")
