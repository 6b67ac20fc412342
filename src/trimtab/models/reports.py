"""Gate reports: what each gate of a policy found about one model, with the numbers it judged by."""

from __future__ import annotations

from datetime import datetime

import msgspec


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate found. `gate` is its name in the policy, `numbers` what it judged by (a number that
    could not be had is None), `reason` one sentence for a person."""

    gate: str
    passed: bool
    numbers: dict[str, float | str | None] = {}
    reason: str = ""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence for or against one model, bound to its content and to the policy that it was held to.

    `digest` is the model's tree, `policy` the digest of the gates policy, `rows` that of the rows that it
    was judged on ("" where no gate needed any), which are of this `dataset_version` of `dataset`; `champion`
    is the digest of the model that it was compared with.
    `version` is None for a candidate that was not registered when it was judged.
    """

    model: str
    digest: str
    policy: str
    results: tuple[GateResult, ...]
    created_at: datetime
    version: int | None = None
    rows: str = ""
    dataset: str = ""
    dataset_version: int | None = None
    champion: str | None = None

    @property
    def passed(self) -> bool:
        """Whether there are results and every one of them passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The results that did not pass."""
        return tuple(result for result in self.results if not result.passed)
