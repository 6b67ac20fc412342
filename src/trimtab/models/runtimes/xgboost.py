"""XGBoost through its C library (the extra `xgboost`): its Python package is loaded by nobody who serves."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import json
import math
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, ModelCorruptError, UnavailableError, missing_extra

_NAMES = {"darwin": "libxgboost.dylib", "win32": "xgboost.dll"}
_TREES = "trees"
"""The option that says how many rounds are served, where training stopped early."""


class XGBoost:
    """One Booster. Safe to share: rows take turns, and a matrix is only read by XGBoost."""

    def __init__(self, content: bytes, *, width: int, threads: int, rounds: int) -> None:
        self._library = library()
        self._width = width
        self._booster = ctypes.c_void_p()
        self._check(self._library.XGBoosterCreate(None, 0, ctypes.byref(self._booster)))
        # Not at exit, when another thread may still be predicting and the memory goes anyway.
        weakref.finalize(self, self._library.XGBoosterFree, self._booster).atexit = False
        if self._library.XGBoosterLoadModelFromBuffer(self._booster, content, len(content)):
            raise ModelCorruptError(f"XGBoost cannot read the model file: {_last_error(self._library)}")
        for name, value in (("nthread", threads), ("device", "cpu")):
            self._check(self._library.XGBoosterSetParam(self._booster, name.encode(), str(value).encode()))
        self._configuration = json.dumps(
            {
                "type": 0,
                "training": False,
                "iteration_begin": 0,
                "iteration_end": rounds,
                "missing": math.nan,
                "strict_shape": False,
                "cache_id": 0,
            }
        ).encode()
        self._one = np.zeros((1, width), dtype=np.float64)
        self._one_described = _described(self._one)
        self._turn = threading.Lock()
        self._predict_row = _holding_the_lock()
        self._shape = ctypes.POINTER(ctypes.c_uint64)()
        self._dimensions = ctypes.c_uint64()
        self._result = ctypes.POINTER(ctypes.c_float)()
        self._outputs = (
            ctypes.byref(self._shape),
            ctypes.byref(self._dimensions),
            ctypes.byref(self._result),
        )
        self._check_shape()

    def _check_shape(self) -> None:
        features = ctypes.c_uint64()
        self._check(self._library.XGBoosterGetNumFeature(self._booster, ctypes.byref(features)))
        if features.value != self._width:
            raise InvalidInputError(
                f"The booster takes {features.value} columns and its inputs declare {self._width}.",
                hint="Train it on inputs.matrix(rows) of the same inputs.",
            )
        self.row([0.0] * self._width)
        each = math.prod(self._shape[place] for place in range(self._dimensions.value))
        if each != 1:
            raise InvalidInputError(
                f"The booster gives {each} numbers for each row, and one is supported.",
                hint="Train one booster for each class, or a binary or regression objective.",
            )

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        with self._turn:
            self._one[0] = values
            status = self._predict_row(
                self._booster, self._one_described, self._configuration, None, *self._outputs
            )
            if status:
                self._check(status)
            return float(self._result[0])

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers, one for each row."""
        values = np.ascontiguousarray(rows, dtype=np.float64)
        count = values.shape[0]
        if not count:
            return np.empty(0, dtype=np.float64)
        shape = ctypes.POINTER(ctypes.c_uint64)()
        dimensions = ctypes.c_uint64()
        result = ctypes.POINTER(ctypes.c_float)()
        self._check(
            self._library.XGBoosterPredictFromDense(
                self._booster,
                _described(values),
                self._configuration,
                None,
                ctypes.byref(shape),
                ctypes.byref(dimensions),
                ctypes.byref(result),
            )
        )
        # What it points to belongs to this thread, until the thread's next call.
        return np.ctypeslib.as_array(result, (count,)).astype(np.float64)

    def _check(self, status: int) -> None:
        if status:
            raise ModelCorruptError(f"XGBoost failed: {_last_error(self._library)}")


def load(content: bytes, *, width: int, threads: int, options: Mapping[str, str]) -> XGBoost:
    """Load a Booster's JSON or UBJSON (the entry point of this runtime).

    The option `trees` says how many rounds are served; all, if it is not given.
    """
    return XGBoost(content, width=width, threads=threads, rounds=int(options.get(_TREES, "0")))


def native(model: Any, names: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """A model file and the runtime's options, of a Booster, an estimator, or a file's bytes. Raises
    InvalidInputError for what is none, or was trained on other columns."""
    if isinstance(model, bytes | bytearray):
        return bytes(model), {}
    options: dict[str, str] = {}
    booster = model
    if hasattr(model, "get_booster"):
        booster = model.get_booster()
        if (missing := getattr(model, "missing", math.nan)) is not None and not math.isnan(missing):
            raise InvalidInputError(
                f"The {type(model).__name__} takes {missing} as missing, and the gateway NaN.",
                hint="Train it with missing=nan.",
            )
        if getattr(booster, "best_iteration", None) is not None and _stopped_early(model):
            options[_TREES] = str(model.best_iteration + 1)
    if not hasattr(booster, "save_raw"):
        raise InvalidInputError(
            f"{type(model).__name__} is no XGBoost model.", hint="Give a Booster, or an XGBModel."
        )
    trained = booster.feature_names
    if trained is not None and list(trained) not in (
        list(names),
        [f"f{place}" for place in range(len(names))],
    ):
        raise InvalidInputError(
            f"The booster was trained on the columns {list(trained)} and its inputs declare {list(names)}.",
            hint="Train it on inputs.matrix(rows) with feature_names=inputs.names.",
        )
    return bytes(booster.save_raw("ubj")), options


def _stopped_early(model: Any) -> bool:
    try:
        return int(model.best_iteration) >= 0
    except AttributeError:  # what it raises if it did not
        return False


@functools.cache
def library() -> ctypes.CDLL:
    """XGBoost's C library, found beside its Python package without importing that."""
    loaded = _open(ctypes.CDLL)
    loaded.XGBGetLastError.restype = ctypes.c_char_p
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64
    loaded.XGBoosterCreate.argtypes = [pointer, size, pointer]
    loaded.XGBoosterFree.argtypes = [pointer]
    loaded.XGBoosterLoadModelFromBuffer.argtypes = [pointer, text, size]
    loaded.XGBoosterSetParam.argtypes = [pointer, text, text]
    loaded.XGBoosterGetNumFeature.argtypes = [pointer, pointer]
    loaded.XGBoosterPredictFromDense.argtypes = [pointer, text, text, pointer, pointer, pointer, pointer]
    return loaded


@functools.cache
def _holding_the_lock() -> ctypes._FuncPointer:  # the type of a foreign function has no public name
    """The call for single rows, made while holding the interpreter's lock: giving it up and getting it back
    would take up to 5 ms under load."""
    function = _open(ctypes.PyDLL).XGBoosterPredictFromDense
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    function.argtypes = [pointer, text, text, pointer, pointer, pointer, pointer]
    return function


def _open(kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    found = importlib.util.find_spec("xgboost")
    name = _NAMES.get(sys.platform, "libxgboost.so")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place, "lib", name)
        if path.is_file():
            try:
                return kind(str(path))
            except OSError as error:
                raise UnavailableError(
                    f"XGBoost's library could not be loaded: {error}.",
                    hint="If libgomp.so.1 is what is missing: apt-get install libgomp1",
                ) from error
    raise missing_extra("xgboost", "xgboost")


def _described(values: NDArray[np.float64]) -> bytes:
    """Where a matrix lies, as XGBoost reads it (NumPy's array interface)."""
    return json.dumps(
        {"data": [values.ctypes.data, True], "shape": values.shape, "typestr": "<f8", "version": 3}
    ).encode()


def _last_error(loaded: ctypes.CDLL) -> str:
    text = str(loaded.XGBGetLastError().decode("utf-8", "replace"))
    return text.partition("\nStack trace")[0].strip()[:300]
