#!/bin/sh
# Creates the virtual environment named by the first argument, with pip in it, from the first Python on
# PATH that Trimtab runs on. Knows the ways round Debian's Python without ensurepip.
set -eu

venv=$1

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# An environment made earlier is kept: only its packages may have to change.
if [ -x "$venv/bin/python" ] && fits "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    exit 0
fi

python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Trimtab needs Python 3.11, 3.12 or 3.13, and none of them is on PATH." >&2
    echo "Install one, for example: sudo apt-get install python3.11 python3.11-venv" >&2
    echo "or name one that lies elsewhere: make venv PYTHON=/path/to/python3.12" >&2
    exit 1
fi

if ! "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
    echo "LightGBM needs the library libgomp.so.1, which is not on this machine." >&2
    echo "Install it with: sudo apt-get install libgomp1" >&2
    exit 1
fi

rm -rf "$venv"
if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$venv"
elif "$python" -m pip --version >/dev/null 2>&1; then
    "$python" -m venv --without-pip "$venv"
    "$python" -m pip --python "$venv/bin/python" install --quiet pip
elif command -v virtualenv >/dev/null 2>&1; then
    virtualenv --quiet --python "$python" "$venv"
elif command -v uv >/dev/null 2>&1; then
    uv venv --quiet --seed --python "$python" "$venv"
else
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    echo "$version has no module 'venv' with pip in it: Debian and Ubuntu ship that apart." >&2
    echo "Install it with: sudo apt-get install $version-venv" >&2
    exit 1
fi
