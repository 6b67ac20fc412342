#!/bin/sh
# Writes requirements.lock anew: every dependency of the package, of its extras (but for PyTorch, which would
# bring gigabytes for GPUs along) and of the checks, at the newest version that the bounds in pyproject.toml
# allow, with the hashes of its files, for every Python and system that is supported. No address of any index
# goes into it.
# Arguments: the virtual environment to borrow a Python from; names of packages to renew (none: all).
set -eu

venv=$1
shift
tools=build/lock
[ -x "$tools/bin/uv" ] || { "$venv/bin/python" -m venv "$tools" && "$tools/bin/pip" install --quiet "uv>=0.9,<1"; }

if [ $# -eq 0 ]; then
    renewed=--upgrade
else
    renewed=$(printf -- '--upgrade-package=%s ' "$@")
fi
# shellcheck disable=SC2086  # several words on purpose
"$tools/bin/uv" --no-config pip compile pyproject.toml --quiet \
    --group dev --extra grpc --extra onnx --extra postgres --extra pyfunc --extra testing --extra xgboost \
    --universal --python-version 3.11 \
    --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
    --custom-compile-command "make lock" --output-file requirements.lock $renewed
