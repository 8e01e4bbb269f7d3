"""What a probe says: a number, what it may be, and where the largest difference lies."""

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["within", "beyond", "not measured"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison. A difference that is not a number is beyond every tolerance."""

    stage: str  # a key of `chain.CHAIN`
    what: str  # what was compared with what, in a few words
    measured: float | None  # the largest difference, in `unit`; None: it could not be measured, `evidence` says why
    tolerance: float
    unit: str
    evidence: str  # one sentence: the layer, tensor, row or token the largest difference is at
    numbers: dict[str, Any] = field(default_factory=dict)  # plain values to look into, such as both curves

    @property
    def verdict(self) -> Verdict:
        """Whether the difference is one that rounding explains."""
        if self.measured is None:
            return "not measured"
        return "within" if self.measured <= self.tolerance else "beyond"

    def __str__(self):
        if self.measured is None:
            return f"{self.stage}: {self.what}: not measured. {self.evidence}"
        size = f"{self.measured:.3g} {self.unit}".strip()
        return f"{self.stage}: {self.what}: {size}, at most {self.tolerance:g} expected. {self.evidence}"
