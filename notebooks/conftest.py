"""With pytest, notebooks run in the environment in which build.py executed them.

Of another language's notebooks one is compared each time; all of them when they are named, as in
`pytest notebooks/zh/*.ipynb`.
"""

import os

from build import FOLDER, KERNEL_ENVIRONMENT, language_of

collect_ignore = [str(path) for path in FOLDER.glob("*/*.ipynb")
                  if language_of(path) != "en" and path.stem != "04_one_step"]

for name, value in KERNEL_ENVIRONMENT.items():
    os.environ.setdefault(name, value)
os.environ["COURSE_PROGRESS"] = ""  # whatever it was: no test adds to anyone's progress
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    # Several kernels compute at once. Threads that wait for each other's cores take far longer than a single one.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
