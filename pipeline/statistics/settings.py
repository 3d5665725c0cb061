"""The `statistics` section of a frozen config, as the statistics use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StatisticsSettings:
    """All that may change a number in `significance.json` besides the scores; defaults are the config's."""

    seed: int = 0
    alpha: float = 0.05
    bootstrap_samples: int = 10_000
    permutation_samples: int = 10_000
    cluster: str = "paragraph"
    margins: Mapping[str, float] = field(default_factory=dict)
    power: float = 0.8
    target_deltas: tuple[float, ...] = (0.01, 0.02, 0.05)

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> StatisticsSettings:
        """From the validated config section; raises TypeError for a key it does not know."""
        values = dict(section)
        if "target_deltas" in values:
            values["target_deltas"] = tuple(values["target_deltas"])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        """The section as `stats_config` records it."""
        return {
            "seed": self.seed,
            "alpha": self.alpha,
            "bootstrap_samples": self.bootstrap_samples,
            "permutation_samples": self.permutation_samples,
            "cluster": self.cluster,
            "margins": dict(self.margins),
            "power": self.power,
            "target_deltas": list(self.target_deltas),
        }
