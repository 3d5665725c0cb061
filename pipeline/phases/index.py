"""index: `aggregate_report.md` and `index.html` of the run, its trials side by side, best first.

Built from the trials' statistics, costs and attempts; their reports are linked, not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline import disk, jsonl
from pipeline.config import Config
from pipeline.paths import RunPaths, TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.report.artifacts import answers_missing, blocks, read_costs, read_significance
from pipeline.report.html import page
from pipeline.report.markdown import markdown
from pipeline.report.overview import Entry, overview
from pipeline.trials import Trial


def index(run: RunPaths, config: Config, trials: Sequence[TrialPaths]) -> Outcome:
    """Write both overviews. Raises DamagedArtifact naming the artifact that is not what its phase writes."""
    by_slug = {trial.slug: trial for trial in config.trials}
    entries = [entry for paths in trials for entry in _entries(paths, by_slug[paths.slug])]
    texts = {
        run.aggregate_report: markdown(overview(config["name"], run.rid, config["provider"], entries, page=False)),
        run.index_html: page(overview(config["name"], run.rid, config["provider"], entries, page=True)),
    }
    outputs = {path: Output(disk.write_bytes(path, text.encode())) for path, text in texts.items()}
    return Outcome(outputs, {"trials": len(trials)})


def _entries(paths: TrialPaths, trial: Trial) -> Iterator[Entry]:
    significance = read_significance(paths.significance)
    parts = jsonl.read_document(paths.attempts)["parts"]
    costs = read_costs(paths.costs)
    for treatment in (significance["treatment"], *sorted(significance["contrasts"])):
        yield Entry(
            slug=paths.slug,
            model=trial.model,
            prompt_set=trial.prompt_set,
            treatment=treatment,
            alpha=significance["stats_config"]["alpha"],
            places={(b.type, b.temp): b for b in blocks(significance) if b.treatment == treatment},
            asked=sum(part["rows"] for part in parts),
            missing=answers_missing(significance),
            # Emulated without a list price, the cost is 0: no number to stand beside another's example price.
            usd=costs["usd"] if costs["pricing"]["table_found"] else None,
            priced=costs["pricing"]["table_found"],
            uncounted=costs["unpriced_answers"],
        )
