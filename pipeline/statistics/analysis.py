"""The whole of `significance.json` from a score table, and the comparison of two runs by the same tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.custom_id import temp_key
from pipeline.errors import ContractBroken, UsageError
from pipeline.statistics.blocks import METRICS, block
from pipeline.statistics.fdr import Families
from pipeline.statistics.metric import Scope
from pipeline.statistics.numbers import seal
from pipeline.statistics.settings import StatisticsSettings
from pipeline.statistics.table import Scores, joined

SCHEMA_VERSION = 3  # 2 was the earlier tool's shape


def analyse(scores: Scores, settings: StatisticsSettings, control: str, treatments: Sequence[str]) -> dict[str, Any]:
    """The document of every treatment against *control*: plain JSON values that fit `significance.schema.json`.

    Raises ContractBroken for a condition without rows, one that was not asked for, or an unknown question type.
    """
    _refuse_other_rows(scores, control, treatments)
    families = Families()
    contrasts = {
        treatment: {
            temp_key(temp): {
                kind: block(
                    scores.pairs(temp, kind, control, treatment),
                    kind,
                    Scope(settings, families, f"{temp_key(temp)}/{kind}", f"{treatment}/{temp_key(temp)}/{kind}"),
                )
                for kind in scores.types
                if len(scores.rows(temp, kind, control)) or len(scores.rows(temp, kind, treatment))
            }
            for temp in scores.temps
        }
        for treatment in treatments
    }
    first, *others = treatments
    return seal(
        {
            "schema_version": SCHEMA_VERSION,
            "control": control,
            "treatment": first,
            "temps": [temp_key(temp) for temp in scores.temps],
            "stats_config": settings.as_json(),
            "results": contrasts[first],
            "contrasts": {name: {"results": contrasts[name]} for name in others},
            "fdr": families.close(),
            "warnings": [],
        }
    )


def compare(
    a: Scores, condition_a: str, b: Scores, condition_b: str, settings: StatisticsSettings, names: tuple[str, str]
) -> dict[str, Any]:
    """Condition *condition_a* of run *a* against *condition_b* of run *b*, paired on the items both hold.

    The document is `analyse`'s, with *a* in the place of the control; *names* are what the two are called in it.
    Items that only one run holds are counted as unpaired. Raises UsageError when there is nothing to pair.
    """
    for scores, condition in ((a, condition_a), (b, condition_b)):
        if condition not in scores.conditions:
            raise UsageError(
                f"no condition {condition!r} in {scores.where}.", hint=f"it has: {', '.join(scores.conditions)}"
            )
    both = joined([(a, condition_a, names[0]), (b, condition_b, names[1])])
    shared = [(temp, kind) for temp in both.temps for kind in both.types if len(both.pairs(temp, kind, *names).item)]
    if not shared:
        raise UsageError(
            f"{names[0]} and {names[1]} share no item at the same temperature.",
            hint=f"temperatures are {_listed(a)} and {_listed(b)}",
        )
    return analyse(both, settings, names[0], [names[1]])


def _listed(scores: Scores) -> str:
    return ", ".join(temp_key(temp) for temp in scores.temps)


def _refuse_other_rows(scores: Scores, control: str, treatments: Sequence[str]) -> None:
    """A table of other conditions than the config's would be compared in part, silently."""
    asked = [control, *treatments]
    troubles = [f"no rows of condition {name!r}" for name in asked if name not in scores.conditions]
    troubles += [f"rows of the unknown condition {name!r}" for name in scores.conditions if name not in asked]
    troubles += [f"rows of the unknown type {name!r}" for name in scores.types if name not in METRICS]
    if troubles:
        raise ContractBroken(
            f"{'; '.join(troubles)}.",
            where=scores.where,
            kept="Nothing was written.",
            hint="doit forget score && doit builds the table again",
        )
