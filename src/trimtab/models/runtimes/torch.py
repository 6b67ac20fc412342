"""Programs that `torch.export` wrote, through PyTorch (the extra `torch`).

`torch.export.load` reaches pickle (any weight or constant of an archive may say `use_pickle`), loads machine
code that lies in the archive, and evaluates text as expressions. So this runtime is one of those that are
loaded where users' code runs, and for a gateway in a process of its own. That also keeps out of the gateway
what PyTorch costs: 2 s of processor time and 300 MB to load a first program.

How many threads a call may use is a matter of the process: one that a gateway starts is told by its
environment, before PyTorch is loaded; one that trains keeps what it has.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, ModelCorruptError, TrimtabError, missing_extra

HOW_TO_EXPORT = (
    "torch.export.export(model.eval(), (rows,), dynamic_shapes=({0: torch.export.Dim('rows')},)), where rows "
    "is a tensor of shape (2 or more, columns)"
)

_MANY_ROWS = 2**31
"""A bound that is none."""


class ProgramInput(msgspec.Struct, frozen=True):
    """The one matrix that a program takes: its columns, and whether they are in single precision."""

    columns: int
    single: bool

    @property
    def type(self) -> type[np.floating[Any]]:
        """What NumPy calls its precision."""
        return np.float32 if self.single else np.float64


class Torch:
    """One exported program. Safe to share: a call only reads it."""

    def __init__(self, program: Any, *, width: int) -> None:
        self._torch = torch_package()
        taken = program_input(program)
        if taken.columns != width:
            raise InvalidInputError(
                f"The program takes {taken.columns} columns and its inputs declare {width}.",
                hint="Train it on inputs.matrix(rows) of the same inputs.",
            )
        self._type = taken.type
        self._module = program.module()

    def row(self, values: Sequence[float]) -> float:
        """The raw answer to one row of numbers."""
        return float(self._run(np.array([values], dtype=self._type))[0])

    def matrix(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The raw answers, one for each row."""
        if not rows.shape[0]:
            return np.empty(0, dtype=np.float64)
        # A copy that may be written to: rows that came from another process are read-only.
        return self._run(np.array(rows, dtype=self._type, order="C"))

    def _run(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        torch = self._torch
        try:
            with torch.inference_mode():
                made = self._module(torch.from_numpy(rows))
        except Exception as error:  # a program may raise anything
            raise InvalidInputError(f"The program raised {told(error)}") from error
        if not isinstance(made, torch.Tensor):
            raise InvalidInputError(
                f"The program gives a {type(made).__name__}, and one tensor is served.",
                hint="Export a module whose forward returns one number for each row.",
            )
        if tuple(made.shape) not in ((len(rows),), (len(rows), 1)) or made.is_complex():
            raise InvalidInputError(
                f"The program answers {len(rows)} rows with {_shown(made)}, and one number for each is "
                "served.",
                hint="Export a module that gives the shape (rows,) or (rows, 1); of a classifier, the "
                "probability.",
            )
        numbers: NDArray[np.float64] = made.reshape(len(rows)).to(torch.float64).numpy()
        return numbers


def load(content: bytes, *, width: int, threads: int, options: Mapping[str, str]) -> Torch:
    """Load a program's archive (the entry point of this runtime). May run code in it."""
    try:
        return Torch(read_program(content), width=width)
    except InvalidInputError as error:
        raise ModelCorruptError(f"The program does not fit its inputs: {error.message}") from error


def read_program(content: bytes) -> Any:
    """The program in an archive that `torch.export.save` wrote. May run code in it."""
    torch = torch_package()
    try:
        return torch.export.load(io.BytesIO(content))
    except Exception as error:  # PyTorch's errors share no narrower class
        raise ModelCorruptError(
            f"PyTorch {torch.__version__} cannot read the program: {told(error)}",
            hint="Another version of PyTorch may have written it; that one can read it.",
        ) from error


def program_input(program: Any) -> ProgramInput:
    """What a program takes. Raises InvalidInputError for one that takes anything but a matrix with any number
    of rows, on the CPU."""
    torch = torch_package()
    names = list(program.graph_signature.user_inputs)
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    values = [nodes[name].meta["val"] if name in nodes else name for name in names]
    if len(values) != 1 or not isinstance(values[0], torch.Tensor) or values[0].ndim != 2:
        shown = ", ".join(_shown(value) for value in values) or "nothing"
        raise InvalidInputError(
            f"The program takes {shown}, and one matrix of rows and columns is supported.",
            hint=f"Export it so: {HOW_TO_EXPORT}.",
        )
    matrix = values[0]
    if matrix.dtype not in (torch.float32, torch.float64):
        raise InvalidInputError(
            f"The program takes {_shown(matrix)}, and float32 and float64 are supported.",
            hint="Have its forward cast the matrix, and export it with a tensor of float32.",
        )
    if matrix.device.type != "cpu":
        raise InvalidInputError(
            f"The program was exported for the device '{matrix.device}'.",
            hint="Move the model with .cpu() and export it again.",
        )
    _check_rows(program, matrix.shape[0])
    if not isinstance(matrix.shape[1], int):
        raise InvalidInputError(
            "The program takes any number of columns.", hint=f"Export it so: {HOW_TO_EXPORT}."
        )
    return ProgramInput(matrix.shape[1], matrix.dtype == torch.float32)


def _check_rows(program: Any, rows: Any) -> None:
    """Whether the number of rows is free: a fixed one is an int here, others are symbols with bounds."""
    if isinstance(rows, int):
        raise InvalidInputError(
            f"The program takes {rows} rows at a time, no more and no fewer.",
            hint=f"Export it so that their number is free: {HOW_TO_EXPORT}.",
        )
    symbol = rows.node.expr
    bounds = program.range_constraints.get(symbol)
    # A lower bound of 2 is how PyTorch says that it traced several rows; such programs take one as well.
    free = symbol.is_Symbol and (bounds is None or not (bounds.lower > 2 or bounds.upper < _MANY_ROWS))
    if not free:
        within = f" from {bounds.lower} to {bounds.upper}" if symbol.is_Symbol else f" of the form {symbol}"
        raise InvalidInputError(
            f"The program takes only numbers of rows{within}.",
            hint=f"Export it so that their number is free, without min or max: {HOW_TO_EXPORT}.",
        )


def torch_package() -> Any:
    """PyTorch."""
    try:
        import torch  # optional, and 1 s and 200 MB to import: see above
    except ImportError as error:
        raise missing_extra("torch", "torch") from error
    return torch


def told(error: BaseException) -> str:
    """The first cause of an error in a line."""
    while (cause := error.__cause__) is not None and not isinstance(error, TrimtabError):
        error = cause
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else f"{text[:200]}..."
    return f"{type(error).__name__}: {text.rstrip('.')}."


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return str(value)
    return f"{str(value.dtype).removeprefix('torch.')} of shape ({', '.join(map(str, shape))})"
