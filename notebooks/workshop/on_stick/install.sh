#!/bin/sh
# Installs the course from this folder, without a network. `sh install.sh --help` lists the options.
cd "$(dirname "$0")" || exit 1
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$python" >/dev/null; then
        exec "$python" install.py "$@"
    fi
done
echo "No Python was found. Install one: from the folder python of this stick if it has one, or from python.org." >&2
exit 1
