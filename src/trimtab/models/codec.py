"""How a model passes from step to step: as its packaged folder."""

from __future__ import annotations

from pathlib import Path

from trimtab.models.model import Model


class ModelCodec:
    """The codec of `Model` (see `trimtab.pipelines.codecs.Codec`). Reading runs no code that came with it."""

    def encode(self, value: Model, to: Path) -> None:
        """Write the model's folder at `to`."""
        value.save(to)

    def decode(self, at: Path) -> Model:
        """Read the model whose folder stands at `at`."""
        return Model.load(at)
