"""LightGBM through its C library: the Python package takes 2 s and 200 MB to import, the library 10 MB."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import struct
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, ModelCorruptError, UnavailableError

# Constants of LightGBM's c_api.h.
_FLOAT64 = 1
_PREDICT_NORMAL = 0
_ALL_ITERATIONS = -1
_ROW_MAJOR = 1

_NAMES = {"darwin": "lib_lightgbm.dylib", "win32": "lib_lightgbm.dll"}


class LightGBM:
    """One Booster. Safe to share: LightGBM guards a single-row predictor by a mutex of its own, and a
    matrix prediction only reads the Booster.
    """

    def __init__(self, content: bytes, *, width: int, threads: int) -> None:
        self._library = library()
        self._width = width
        self._parameters = f"num_threads={threads} verbosity=-1".encode()
        booster = self._booster = _create(self._library, content)
        _free_with(self, self._library.LGBM_BoosterFree, booster)
        self._check_shape()
        self._fast = ctypes.c_void_p()
        _check(
            self._library,
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                booster,
                _PREDICT_NORMAL,
                0,
                _ALL_ITERATIONS,
                _FLOAT64,
                width,
                self._parameters,
                ctypes.byref(self._fast),
            ),
        )
        # Freed before the booster, since finalizers run last in, first out.
        _free_with(self, self._library.LGBM_FastConfigFree, self._fast)
        self._pack = struct.Struct(f"{width}d").pack
        self._predict_row = _single_row()

    def _check_shape(self) -> None:
        features, classes = ctypes.c_int(), ctypes.c_int()
        _check(self._library, self._library.LGBM_BoosterGetNumFeature(self._booster, ctypes.byref(features)))
        _check(self._library, self._library.LGBM_BoosterGetNumClasses(self._booster, ctypes.byref(classes)))
        if features.value != self._width:
            raise InvalidInputError(
                f"The booster takes {features.value} columns and its inputs declare {self._width}.",
                hint="Train it on inputs.matrix(rows) of the same inputs.",
            )
        if classes.value != 1:
            raise InvalidInputError(
                f"The booster gives {classes.value} numbers for each row, and one is supported.",
                hint="Train one booster for each class, or a binary or regression objective.",
            )

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        answer, length = ctypes.c_double(), ctypes.c_int64()
        status = self._predict_row(
            self._fast, self._pack(*values), ctypes.byref(length), ctypes.byref(answer)
        )
        if status:
            _check(self._library, status)
        return answer.value

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers, one for each row."""
        values = np.ascontiguousarray(rows, dtype=np.float64)
        made = np.empty(values.shape[0], dtype=np.float64)
        if not made.size:
            return made
        length = ctypes.c_int64()
        _check(
            self._library,
            self._library.LGBM_BoosterPredictForMat(
                self._booster,
                values.ctypes.data_as(ctypes.c_void_p),
                _FLOAT64,
                values.shape[0],
                values.shape[1],
                _ROW_MAJOR,
                _PREDICT_NORMAL,
                0,
                _ALL_ITERATIONS,
                self._parameters,
                ctypes.byref(length),
                made.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            ),
        )
        return made


def load(content: bytes, *, width: int, threads: int, options: Mapping[str, str]) -> LightGBM:
    """Load a Booster's text (the entry point of this runtime)."""
    return LightGBM(content, width=width, threads=threads)


@functools.cache
def library() -> ctypes.CDLL:
    """LightGBM's C library, found beside its Python package without importing that."""
    loaded = _open(ctypes.CDLL)
    loaded.LGBM_GetLastError.restype = ctypes.c_char_p
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    loaded.LGBM_BoosterLoadModelFromString.argtypes = [text, pointer, pointer]
    loaded.LGBM_BoosterGetNumFeature.argtypes = [pointer, pointer]
    loaded.LGBM_BoosterGetNumClasses.argtypes = [pointer, pointer]
    loaded.LGBM_BoosterFree.argtypes = [pointer]
    loaded.LGBM_FastConfigFree.argtypes = [pointer]
    loaded.LGBM_BoosterPredictForMatSingleRowFastInit.argtypes = [
        pointer, integer, integer, integer, integer, ctypes.c_int32, text, pointer,
    ]  # fmt: skip
    loaded.LGBM_BoosterPredictForMat.argtypes = [
        pointer, pointer, integer, ctypes.c_int32, ctypes.c_int32, integer, integer, integer, integer,
        text, pointer, pointer,
    ]  # fmt: skip
    return loaded


@functools.cache
def _single_row() -> ctypes._FuncPointer:  # the type of a foreign function has no public name
    """The single-row call, made while holding the interpreter's lock.

    It takes microseconds; giving the lock up and getting it back would take up to 5 ms under load.
    """
    function = _open(ctypes.PyDLL).LGBM_BoosterPredictForMatSingleRowFast
    function.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    return function


def _open(kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    found = importlib.util.find_spec("lightgbm")
    name = _NAMES.get(sys.platform, "lib_lightgbm.so")
    for place in (found.submodule_search_locations or ()) if found else ():
        for path in (Path(place, "lib", name), Path(place, "bin", name)):
            if path.is_file():
                try:
                    return kind(str(path))
                except OSError as error:
                    raise UnavailableError(
                        f"LightGBM's library could not be loaded: {error}.",
                        hint="If libgomp.so.1 is what is missing: apt-get install libgomp1",
                    ) from error
    raise UnavailableError(
        f"LightGBM's library {name} was not found.", hint="Install it with: pip install lightgbm"
    )


def _create(loaded: ctypes.CDLL, content: bytes) -> ctypes.c_void_p:
    # LightGBM parses text without checking bounds everywhere, so refuse at once what is no Booster's.
    if not content.startswith(b"tree\n") or b"\nend of trees" not in content or b"\0" in content:
        raise ModelCorruptError("The model file is not a LightGBM Booster's text, or it was cut short.")
    booster, iterations = ctypes.c_void_p(), ctypes.c_int()
    status = loaded.LGBM_BoosterLoadModelFromString(content, ctypes.byref(iterations), ctypes.byref(booster))
    if status:
        raise ModelCorruptError(f"LightGBM cannot read the model file: {_last_error(loaded)}.")
    return booster


def _free_with(owner: object, free: Callable[[ctypes.c_void_p], int], handle: ctypes.c_void_p) -> None:
    # Not at exit, when another thread may still be predicting and the memory goes anyway.
    weakref.finalize(owner, free, handle).atexit = False


def _check(loaded: ctypes.CDLL, status: int) -> None:
    if status:
        raise ModelCorruptError(f"LightGBM failed: {_last_error(loaded)}.")


def _last_error(loaded: ctypes.CDLL) -> str:
    return str(loaded.LGBM_GetLastError().decode("utf-8", "replace"))
