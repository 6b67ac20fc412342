"""PyTorch's exported programs: as ONNX models where those answer alike, and else as archives of their own."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from trimtab.errors import InvalidInputError, MissingExtraError, TrimtabError, missing_extra
from trimtab.models.conversion.differences import check_singles, furthest
from trimtab.models.conversion.rows_to_check import (
    Rows,
    given_rows,
    opened,
    perturbed_rows,
    with_closed,
    with_missing,
    with_unknown,
)
from trimtab.models.encoding import Encoder
from trimtab.models.inputs import Inputs
from trimtab.models.runtimes.onnx import load
from trimtab.models.runtimes.torch import HOW_TO_EXPORT, Torch, program_input, read_program, told

try:
    import onnx
    import onnxscript  # noqa: F401  (what torch.onnx translates with; it says so only halfway through)
except ModuleNotFoundError as error:
    raise missing_extra(error.name or "onnxscript", "torch") from error

SINGLE_TOLERANCE = 1e-5
DOUBLE_TOLERANCE = 1e-9
"""How far answers in these precisions may lie apart, relative to the larger of 1 and the answer."""

Numbers = NDArray[np.float64]

_log = logging.getLogger(__name__)


class Packaged(msgspec.Struct, frozen=True):
    """A program as it is served: the runtime, its file, the inputs and the tolerance to serve it with."""

    runtime: str
    file: str
    content: bytes
    inputs: Inputs
    tolerance: float
    options: dict[str, str]


def packaged(given: Any, inputs: Inputs, *, rows: pl.DataFrame | None, tolerance: float | None) -> Packaged:
    """Make what is served of an ExportedProgram, of a module, or of an archive that torch.export.save wrote.

    Compared on the example rows, on `rows`, on both moved at random, without what may be missing, and with
    categories that are unknown. Raises InvalidInputError for a program that cannot be served at all.
    """
    program = _program(given, inputs)
    single = program_input(program).single
    if tolerance is None:
        tolerance = SINGLE_TOLERANCE if single else DOUBLE_TOLERANCE
    archive = _archive(program)
    width = len(inputs.signature.columns)
    # Read again, as it will be served; so neither its weights nor its counters are those that were given.
    original = Torch(read_program(archive), width=width)
    checked = _Checked(original, inputs, given_rows(inputs, rows), tolerance)
    notes = {"checked_rows": str(checked.said.size), "precision": "single" if single else "double"}
    try:
        content = _onnx(read_program(archive))
        runtime = load(content, width=width, threads=1, options={})
        made = runtime.matrix(checked.matrix)
        check_singles(runtime, checked.matrix, made, tolerance)
        worst = furthest(made, checked.said)
        if not worst.difference <= tolerance:
            raise InvalidInputError(
                f"As ONNX it answers row {worst.row} of those compared with {worst.converted!r} where "
                f"PyTorch says {worst.original!r}: a relative difference of {worst.difference:.2g}, and "
                f"{tolerance:g} is allowed."
            )
    except MissingExtraError:
        raise
    except Exception as error:  # noqa: BLE001  (torch.onnx and ONNX Runtime raise anything; PyTorch serves it)
        reason = error.message if isinstance(error, TrimtabError) else told(error)
        _log.warning(
            "The program is not converted to ONNX: %s PyTorch serves it in a process of its own, which the "
            "setting confined_models has to allow.",
            reason,
        )
        options = {**notes, "not_converted": reason}
        return Packaged("torch", "model.pt2", archive, checked.inputs, tolerance, options)
    options = {
        **notes,
        "converted_from": f"ExportedProgram (torch {version('torch').partition('+')[0]})",
        "largest_difference": f"{worst.difference:.2g}",
    }
    return Packaged("onnx", "model.onnx", content, checked.inputs, tolerance, options)


class _Checked:
    """The rows as the program takes them, and what it says. Categories that it cannot take are closed."""

    def __init__(self, original: Torch, inputs: Inputs, given: Rows, tolerance: float) -> None:
        self._original = original
        self._encoder = Encoder(opened(inputs.signature))
        self._matrices: list[Numbers] = []
        self._said: list[Numbers] = []
        matrix = self._encoded(given)
        said = self._keep(matrix, original.matrix(matrix))
        again = original.matrix(matrix)
        if not np.array_equal(again, said, equal_nan=True):
            raise InvalidInputError(
                "The program answers the same rows otherwise when it is asked again.",
                hint="Export it in evaluation mode, without dropout: model.eval() first.",
            )
        try:
            check_singles(original, matrix, said, tolerance)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"The program cannot be served one row at a time. {error.message}",
                hint="Each row's answer must depend on that row only; of a model with batch normalization, "
                "call model.eval() before you export it.",
            ) from error
        self._keep_answered(self._encoded(perturbed_rows(inputs, given)))
        for name, rows in with_missing(inputs, given):
            matrix = self._encoded(rows)
            try:
                self._keep(matrix, original.matrix(matrix))
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"The column '{name}' may be missing, and rows without it make the program fail: "
                    f"{error.message}",
                    hint="Have it take NaN, or what inputs(missing=...) says, or declare inputs that are "
                    "never missing.",
                ) from error
        closed = {name for name, rows in with_unknown(inputs, given) if not self._takes(rows)}
        self.inputs = with_closed(inputs, closed)
        self.matrix, self.said = np.concatenate(self._matrices), np.concatenate(self._said)

    def _encoded(self, rows: Rows) -> Numbers:
        return self._encoder.matrix(rows, len(next(iter(rows.values()))))

    def _keep(self, matrix: Numbers, said: Numbers) -> Numbers:
        self._matrices.append(matrix)
        self._said.append(said)
        return said

    def _keep_answered(self, matrix: Numbers) -> None:
        """Those rows that the program takes: some numbers may be nothing for it."""
        try:
            self._keep(matrix, self._original.matrix(matrix))
        except InvalidInputError:
            for row in np.split(matrix, len(matrix)):
                with contextlib.suppress(InvalidInputError):
                    self._keep(row, self._original.matrix(row))

    def _takes(self, rows: Rows) -> bool:
        """Whether the program has a number to say to rows with an unknown category."""
        matrix = self._encoded(rows)
        try:
            said = self._original.matrix(matrix)
        except InvalidInputError:
            return False
        if np.isnan(said).any():
            return False
        self._keep(matrix, said)
        return True


def _program(given: Any, inputs: Inputs) -> Any:
    """The exported program of what was given."""
    if isinstance(given, torch.export.ExportedProgram):
        return given
    if isinstance(given, bytes | bytearray):
        return read_program(bytes(given))
    if isinstance(given, str | os.PathLike):
        return read_program(Path(given).read_bytes())
    if isinstance(given, torch.nn.Module):
        return _exported(given, inputs)
    raise InvalidInputError(
        f"{type(given).__name__} is no program.",
        hint="Give a torch.export.ExportedProgram, the path of a .pt2 file, its bytes, or a torch.nn.Module.",
    )


def _exported(module: Any, inputs: Inputs) -> Any:
    """A module exported in evaluation mode, with any number of rows; it is left in the mode it was in."""
    weights = [*module.parameters(), *module.buffers()]
    if any(weight.device.type != "cpu" for weight in weights):
        raise InvalidInputError("The module is not on the CPU.", hint="Move it with .cpu() first.")
    type_ = next((weight.dtype for weight in weights if weight.is_floating_point()), torch.float32)
    count = len(next(iter(inputs.example.values())))
    matrix = Encoder(inputs.signature).matrix(inputs.example, count)
    example = torch.from_numpy(np.resize(matrix, (max(count, 2), matrix.shape[1]))).to(type_)
    training = [(each, each.training) for each in module.modules()]
    try:
        with _quiet():
            module.eval()
            return torch.export.export(
                module, (example,), dynamic_shapes=({0: torch.export.Dim("rows")},), strict=False
            )
    except Exception as error:  # the module's own code may raise anything
        raise InvalidInputError(
            f"The {type(module).__name__} cannot be exported for any number of rows: {told(error)}",
            hint=f"Export it yourself and give the program: {HOW_TO_EXPORT}.",
        ) from error
    finally:
        for each, mode in training:
            each.training = mode


def _archive(program: Any) -> bytes:
    """What torch.export.save writes, without the example rows and the places in the maker's source code: one
    is nobody's business, and the other makes equal programs differ."""
    graphs = [each.graph for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    nodes = [(node, node.meta) for graph in graphs for node in graph.nodes]
    example, place = program.example_inputs, io.BytesIO()
    try:
        program.example_inputs = None
        for node, meta in nodes:
            node.meta = {key: value for key, value in meta.items() if key == "val"}
        with _quiet():
            torch.export.save(program, place)
    except Exception as error:  # PyTorch's errors share no narrower class
        raise InvalidInputError(f"torch.export cannot save the program: {told(error)}") from error
    finally:
        program.example_inputs = example
        for node, meta in nodes:
            node.meta = meta
    return place.getvalue()


def _onnx(program: Any) -> bytes:
    """What torch.onnx makes of it, without what tells of the maker's source code."""
    with _quiet():
        model = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    del model.metadata_props[:]
    model.graph.ClearField("value_info")
    for function in model.functions:
        _strip(function.node)
        del function.metadata_props[:]
    _strip_graph(model.graph)
    return bytes(model.SerializeToString(deterministic=True))


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    for part in (graph, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
    _strip(graph.node)


def _strip(nodes: Any) -> None:
    for node in nodes:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:  # reading a field that is not set does not set it
                    _strip_graph(graph)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's remarks on packages that are not there, and on its own deprecations."""
    noisy = logging.getLogger("torch")
    level = noisy.level
    noisy.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        noisy.setLevel(level)
