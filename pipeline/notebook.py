"""A finished run as pandas DataFrames, for notebooks: `pipeline.load_run("RID")`.

Cells that are empty because something does not apply or is missing become NaN, never 0. The guard in
front of text that a spreadsheet might run is taken off: texts are exactly what the model wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import jsonl, manifest, paths, runs
from pipeline.cells import unguard
from pipeline.errors import NotReady, UsageError
from pipeline.paths import RunPaths, TrialPaths
from pipeline.record import read_record

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("em", "f1", "abstain_rate", "false_answer_rate", "unsupported_rate")
_PREDICTION_TEXTS = ("custom_id", "dataset", "item_id", "request_id", "finish_reason", "response_text", "error")
_SCORE_TEXTS = ("item_key", "dataset", "item_id", "cluster")
_KEY = ["dataset", "item_id", "type", "temp"]


@dataclass(frozen=True)
class TrialData:
    """One trial's results. Each table is read when it is first asked for; NotReady is raised for one not there yet."""

    files: TrialPaths
    control: str

    @property
    def slug(self) -> str:
        """The trial's name."""
        return self.files.slug

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """One row per request: ids, answer as the model wrote it (NaN where none came), tokens, status."""
        table = self._table(self.files.predictions, _PREDICTION_TEXTS, ours="status")
        if "status" in table:
            table["response_text"] = table["response_text"].where(table["status"] != "error")
        return table

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row per item, temperature and condition: means over its samples; NaN where not applicable."""
        table = self._table(self.files.scores, _SCORE_TEXTS, ours="cluster")
        if "item_id" not in table:  # the earlier tool's table
            table[["dataset", "item_id"]] = table["item_key"].str.split("|", n=1, expand=True)
        missing = {metric: float("nan") for metric in METRICS if metric not in table}
        return table.assign(**missing)

    @cached_property
    def deltas(self) -> pd.DataFrame:
        """One row per item, temperature and treatment: treatment minus control for each metric, to 12 decimals.

        So far do the statistics look as well: 0.6 - 0.4 and 0.2 are two different floats.
        """
        import pandas as pd

        by_condition = {name: rows.set_index(_KEY) for name, rows in self.scores.groupby("condition")}
        base = by_condition.pop(self.control)[list(METRICS)]
        pieces = [
            (rows[list(METRICS)] - base).round(12).assign(treatment=name).reset_index()
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

    def _table(self, path: Path, texts: tuple[str, ...], *, ours: str) -> pd.DataFrame:
        """The CSV at *path*; *ours* is a column that the earlier tool, which did not guard texts, had not."""
        import pandas as pd

        if not path.exists():
            raise self._not_there(path)
        # Only an empty cell is missing, and only where no text stands: "NA" and "null" are answers, too.
        columns = list(pd.read_csv(path, nrows=0).columns)
        table = pd.read_csv(
            path,
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values={column: [""] for column in columns if column not in texts},
        )
        for column in texts:
            if column in columns:
                table[column] = table[column].astype(object).map(unguard if ours in columns else str)
        return table

    def _document(self, path: Path) -> Mapping[str, Any]:
        try:
            document: Mapping[str, Any] = jsonl.read_document(path)
        except FileNotFoundError:
            raise self._not_there(path) from None
        return document

    def _not_there(self, path: Path) -> NotReady:
        return NotReady("is not there yet.", where=str(path), hint=f"doit resume rid={self.files.run.rid}")


@dataclass(frozen=True)
class RunData:
    """A run, its frozen config, its questions and its trials by name."""

    files: RunPaths
    config: Mapping[str, Any] = field(repr=False)  # all prompts and settings: pages, where a cell ends with a run
    trials: Mapping[str, TrialData]

    @property
    def rid(self) -> str:
        """The run's id."""
        return self.files.rid

    @property
    def trial(self) -> TrialData:
        """The run's only trial. Raises UsageError when there are several."""
        if len(self.trials) != 1:
            raise UsageError(
                f"run {self.rid} has {len(self.trials)} trials.", hint=f"use .trials[{min(self.trials)!r}]"
            )
        return next(iter(self.trials.values()))

    @cached_property
    def items(self) -> pd.DataFrame:
        """One row per question: dataset, item_id, type, question, answers, and for open book the context."""
        import pandas as pd

        rows = [
            {"type": kind, **jsonl.loads(line.data)}
            for kind, path in (("closed", self.files.closed_book), ("open", self.files.open_book))
            if path.exists()
            for line in jsonl.lines(path)
        ]
        return pd.DataFrame(rows).rename(columns={"id": "item_id"})


def load_run(rid: str | None = None, experiments: str | Path = paths.EXPERIMENTS) -> RunData:
    """The run *rid* (the latest by default) below the folder *experiments*. Reads; never writes.

    Raises UnknownRun, which lists the runs there are.
    """
    root = Path(experiments)
    known = {run.rid: run for _, run in runs.known_runs(root)}
    if rid is None and known:
        rid = list(known)[-1]
    if rid is None or rid not in known:
        raise runs.unknown_run(rid or "latest", root)
    run = known[rid]
    record = read_record(run.record)
    control = record.config["control"]
    return RunData(run, record.config, {slug: TrialData(run.trial(slug), control) for slug in record.trials})
