#!/bin/sh
# Exact pins for requirements/*.in, from a fresh environment: PYTHON=python3.11 sh scripts/lock.sh
set -eu
cd "$(dirname "$0")/.."
new=_build/lock
pip() { "$new/bin/python" -m pip --quiet --disable-pip-version-check --no-input "$@"; }
rm -rf "$new"
"${PYTHON:-python3}" -m venv "$new"
pip install -r requirements/light.in
pip freeze --exclude pip > requirements/light.txt
pip install -c requirements/light.txt -r requirements/full.in
pip freeze --exclude pip | sed 's/+cpu$//' | grep -v -i -E '^(nvidia|triton|cuda)' > requirements/full.txt
rm -rf "$new"
