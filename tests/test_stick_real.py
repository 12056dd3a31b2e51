"""A USB stick of the real wheels for this computer, and the installation from it: `pytest -m stick` fetches 300 MB."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest
from stick_installation import alone, install

from course_utils.workshop.readiness import read_readiness

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
sys.path.insert(0, str(NOTEBOOKS / "workshop"))

from stick import make_stick  # noqa: E402  (a script beside the notebooks, not a module of the package)
from wheels import Target  # noqa: E402

HERE = {"Windows": "windows", "Darwin": "macos"}.get(
    platform.system(), "linux-arm" if platform.machine() == "aarch64" else "linux")


@pytest.mark.stick
def test_the_course_installs_from_a_stick(tmp_path) -> None:
    """Without a network where that can be had. PyTorch for Linux comes from where PIP_FIND_LINKS says, if it does."""
    target = Target(HERE, "{}.{}".format(*sys.version_info))
    make_stick(tmp_path / "stick", [target], torch=os.environ.get("PIP_FIND_LINKS"))
    result = install(tmp_path / "stick", "--to", str(tmp_path / "course"), "--name", "Ann",
                     before=alone() if sys.platform == "linux" else ())
    assert result.returncode == 0, result.stdout + result.stderr
    rows = {row.what: row for row in read_readiness(tmp_path / "course" / "check.json").rows}
    assert rows["Tested versions"].status == rows["Notebook kernel"].status == "OK"
