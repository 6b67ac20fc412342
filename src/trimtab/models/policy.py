"""The gates policy of a governed model, and the override by which a person goes past it."""

from __future__ import annotations

import msgspec

from trimtab.data.window import Window
from trimtab.digest import digest_json
from trimtab.errors import InvalidInputError


class PolicyGate(msgspec.Struct, frozen=True):
    """One gate of a policy: a name that is unique in it, and how the gate is declared, as builtins."""

    name: str
    declaration: object

    @property
    def digest(self) -> str:
        """The digest of the declaration; two gates of one name and digest are the same gate."""
        return digest_json(self.declaration)


class PolicyRows(msgspec.Struct, frozen=True, omit_defaults=True):
    """The held-out rows that the gates are judged on: those of a dataset within `window`, as asked for when
    they are judged. `target` is the column of the labels."""

    dataset: str
    target: str
    window: Window = Window()

    def __post_init__(self) -> None:
        if not self.dataset.strip() or not self.target.strip():
            raise InvalidInputError(
                "The rows of a policy are of a dataset, and one of its columns is the target."
            )


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """The gates that a version must pass to become champion; raises InvalidInputError if there is none,
    or if two have one name. `rows` is None where a loop says on which rows they are judged."""

    gates: tuple[PolicyGate, ...]
    rows: PolicyRows | None = None

    def __post_init__(self) -> None:
        if not self.gates:
            raise InvalidInputError("A gates policy needs at least one gate.")
        names = self.names
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise InvalidInputError(f"The gates of a policy need names of their own; these are: {names}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the gates."""
        return tuple(gate.name for gate in self.gates)

    @property
    def digest(self) -> str:
        """The policy's digest; the order of the gates does not matter."""
        gates = {gate.name: gate.declaration for gate in self.gates}
        return digest_json(gates if self.rows is None else {"gates": gates, "rows": self.rows})

    def weakened_from(self, earlier: Policy) -> tuple[str, ...]:
        """The names of the gates of `earlier` that are gone or declared otherwise here.

        Whether another declaration is weaker cannot be told in general (a metric may be any function), so
        every change of a gate counts.
        """
        standing = {gate.name: gate.digest for gate in self.gates}
        return tuple(gate.name for gate in earlier.gates if standing.get(gate.name) != gate.digest)


class Override(msgspec.Struct, frozen=True):
    """A person's decision to go past the policy, and why; raises InvalidInputError if either is blank."""

    person: str
    reason: str

    def __post_init__(self) -> None:
        if not self.person.strip() or not self.reason.strip():
            raise InvalidInputError("An override names a person and a reason; neither may be blank.")
