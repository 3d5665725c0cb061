"""A finished run as pandas DataFrames, for notebooks: `pipeline.load_run("RID")`.

Cells that are empty because something does not apply or is missing become NaN, never 0. The guard in
front of text that a spreadsheet might run is taken off: texts are exactly what the model wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import jsonl, manifest, paths, workspace
from pipeline.cells import unguard
from pipeline.errors import NotReady, UsageError
from pipeline.paths import RunPaths, TrialPaths

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("em", "f1", "abstain_rate", "false_answer_rate", "unsupported_rate")
_TEXTS = ("custom_id", "dataset", "item_id", "request_id", "finish_reason", "response_text", "error")
_KEY = ["dataset", "item_id", "type", "temp"]


@dataclass(frozen=True)
class TrialData:
    """One trial's results. Each table is read when it is first asked for."""

    files: TrialPaths
    control: str

    @property
    def slug(self) -> str:
        """The trial's name."""
        return self.files.slug

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per request: ids, answer text as the model wrote it, tokens, status."""
        table = self._table(self.files.predictions, text=_TEXTS)
        for column in _TEXTS:
            table[column] = table[column].map(unguard)
        return table

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per item, temperature and condition: means over its samples; NaN where not applicable."""
        table = self._table(self.files.scores, text=("item_key", "dataset", "item_id", "cluster"))
        for column in ("item_key", "dataset", "item_id", "cluster"):
            table[column] = table[column].map(unguard)
        return table

    @cached_property
    def deltas(self) -> pd.DataFrame:
        """One row per item, temperature and treatment: treatment minus control, for each metric."""
        import pandas as pd

        by_condition = {name: rows.set_index(_KEY) for name, rows in self.scores.groupby("condition")}
        base = by_condition.pop(self.control)[list(METRICS)]
        pieces = [
            (rows[list(METRICS)] - base).assign(treatment=name).reset_index()
            for name, rows in sorted(by_condition.items())
        ]
        return pd.concat(pieces, ignore_index=True)

    @cached_property
    def significance(self) -> Mapping[str, Any]:
        """The content of `significance.json`."""
        return self._document(self.files.significance)

    @cached_property
    def costs(self) -> Mapping[str, Any]:
        """The content of `costs.json`."""
        return self._document(self.files.costs)

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The content of `trial_manifest.json`."""
        return manifest.load(self.files.manifest).document

    def _table(self, path: Path, *, text: tuple[str, ...]) -> pd.DataFrame:
        import pandas as pd

        if not path.exists():
            raise self._not_there(path)
        # Only an empty cell is missing, and only where no text stands: "NA" and "null" are answers, too.
        columns = pd.read_csv(path, nrows=0).columns
        missing = {column: [""] for column in columns if column not in text}
        return pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=missing)

    def _document(self, path: Path) -> Mapping[str, Any]:
        try:
            document: Mapping[str, Any] = jsonl.read_document(path)
        except FileNotFoundError:
            raise self._not_there(path) from None
        return document

    def _not_there(self, path: Path) -> NotReady:
        rid = self.files.root.parent.name.removeprefix("run_")
        return NotReady("is not there yet.", where=str(path), hint=f"doit resume rid={rid}")


@dataclass(frozen=True)
class RunData:
    """A run and its trials by name."""

    rid: str
    config: Mapping[str, Any]
    trials: Mapping[str, TrialData]

    @property
    def trial(self) -> TrialData:
        """The run's only trial. Raises UsageError when there are several."""
        if len(self.trials) != 1:
            raise UsageError(
                f"run {self.rid} has {len(self.trials)} trials.", hint=f"use .trials[{min(self.trials)!r}]"
            )
        return next(iter(self.trials.values()))


def load_run(rid: str | None = None, experiments: str | Path = paths.EXPERIMENTS) -> RunData:
    """The run *rid* (the latest by default) below the folder *experiments*. Reads; never writes.

    Raises UnknownRun, which lists the runs there are.
    """
    root = Path(experiments)
    known = {run.rid: run for _, run in workspace.known_runs(root)}
    if rid is None and known:
        rid = list(known)[-1]
    if rid is None or rid not in known:
        raise workspace.unknown_run(rid or "latest", root)
    run: RunPaths = known[rid]
    record = workspace.read_record(run.record)
    control = record.config["control"]
    return RunData(rid, record.config, {slug: TrialData(run.trial(slug), control) for slug in record.trials})
