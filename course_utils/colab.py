"""Google Colab, whose machines are gone with the session: progress is kept on the learner's Google Drive."""

from __future__ import annotations

import os
from pathlib import Path

from course_utils.errors import InputError
from course_utils.language import gettext

DRIVE = Path("/content/drive")  # where Colab's own examples mount it
PROGRESS_FILE = DRIVE / "MyDrive" / "course-progress.json"


def use_drive() -> None:
    """Mount the learner's Google Drive, for which Google asks, and keep the progress in a file on it.

    Raises:
        InputError: if this is not Colab, or the drive was not mounted.
    """
    try:
        from google.colab import drive
    except ImportError as error:
        raise InputError("There is no Google Drive outside of Google Colab: set PROGRESS_ON_DRIVE to False, and name "
                         "another file for your progress by COURSE_PROGRESS.") from error
    try:
        drive.mount(str(DRIVE))
    except Exception as error:  # whatever Google's page or the learner said no with
        raise InputError(gettext("The drive was not mounted ({error}): run the cell again and say yes, or set "
                                 "PROGRESS_ON_DRIVE to False.").format(error=error)) from error
    os.environ["COURSE_PROGRESS"] = str(PROGRESS_FILE)
    print(gettext("Your progress is kept on your Google Drive, in {name}.").format(name=PROGRESS_FILE.name))
