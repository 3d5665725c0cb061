"""What a run has spent and may still spend; the hard stop at `budget.max_usd`.

The provider's own counts say what an attempt cost once it ended; until then the most it was to cost counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import jsonl, plain
from pipeline.config import Config
from pipeline.errors import BudgetExceeded, DamagedArtifact
from pipeline.ledger import ID_TAKEN, Attempt
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import MOST_TOKENS, JobPhase
from pipeline.providers.resources import phase_of
from pipeline.queue import estimates
from pipeline.queue.attempts import breadcrumbs
from pipeline.queue.estimates import Price, Tokens
from pipeline.trials import Trial
from pipeline.workspace import Workspace


def spent(attempt: Attempt, price: Price) -> float | None:
    """What an attempt cost or may still cost: the provider's counts once it ended, else the most it was to cost.

    None when neither has a price.
    """
    tokens = None if attempt.ended is None else counted(attempt.counts, attempt.ended)
    return _spent(attempt.state, tokens, attempt.estimate, price)


def _spent(state: str | None, tokens: Tokens | None, estimate: Mapping[str, Any], price: Price) -> float | None:
    if state == ID_TAKEN:
        return 0.0  # it had no job
    usd = None if tokens is None else price.usd(*tokens)
    if usd is None:
        usd = estimate.get("usd")
    if usd is None and estimate.get("input_tokens"):  # the intent was written before there was a price
        usd = price.usd(estimate["input_tokens"], estimate["output_tokens"])
    return usd


def committed(work: Workspace) -> Iterator[float | None]:
    """`spent` of each attempt that the run ever made, also of a trial that its config no longer has.

    What a lost ledger said of an attempt stands in attempts.json as well, once its trial was downloaded. Of one that
    stands nowhere, but left something, the requests say what it may have cost at most; None where they are gone too.
    """
    seen = set[str]()
    known = defaultdict[PartPaths, set[str]](set)  # the jobs of a part that some record tells of
    for slug, part, book in work.ledgers():
        for attempt in book.attempts:
            known[work.trial_paths(slug).part(part)].add(attempt.job_id)
            if attempt.job_id not in seen:  # in a copy of a trial's folder it stands again
                seen.add(attempt.job_id)
                yield spent(attempt, _price(work, slug, attempt.model))
    slugs = sorted({folder.parents[1].name for folder in work.paths.root.glob("*/results/*")})
    for paths in map(work.trial_paths, slugs):
        for name, entry in _downloaded(paths):
            known[paths.part(name)].add(entry["job_id"])
            if entry["job_id"] not in seen:
                seen.add(entry["job_id"])
                tokens = counted_of(entry) if entry["state"] else None
                yield _spent(entry["state"], tokens, entry["estimate"], _price(work, paths.slug, entry["model"]))
        if work.record.origin is None:  # of the earlier tool's answers nobody knows what they cost
            for files in (PartPaths(folder) for folder in sorted(paths.results.iterdir()) if folder.is_dir()):
                made = len(breadcrumbs(files)) or int(files.shows_submission())
                if (unknown := made - len(known[files])) > 0:
                    usd = _at_most(work, paths, files)
                    yield None if usd is None else usd * unknown


def _at_most(work: Workspace, paths: TrialPaths, files: PartPaths) -> float | None:
    """What an attempt of a part of which no record is left may have cost; None where that cannot be told."""
    requests, model = paths.part_requests(files.root.name), _asked(work, paths.slug)
    usd = estimates.of_requests(requests).usd(_price(work, paths.slug, model)) if model and requests.is_file() else None
    return None if usd is None else usd[2]


def _asked(work: Workspace, slug: str) -> str | None:
    """The model that trial *slug* asks; of one that the config no longer has, its list of parts knows it."""
    if (trial := work.trials.get(slug)) is not None:
        return trial.model
    with suppress(DamagedArtifact):
        if (index := work.index(slug)) is not None:
            return str(index.settings["model"])
    return None


def _downloaded(paths: TrialPaths) -> list[tuple[str, dict[str, Any]]]:
    """(part, attempt) of each in attempts.json; none where it is not there or damaged, which its phase tells."""
    needed = ("job_id", "model", "state", "counts", "estimate")
    try:
        listed = jsonl.read_document(paths.attempts)["parts"]
        return [(part["part"], {key: made[key] for key in needed}) for part in listed for made in part["attempts"]]
    except (FileNotFoundError, DamagedArtifact, KeyError, TypeError):
        return []


def _price(work: Workspace, slug: str, model: str) -> Price:
    trial = work.trials.get(slug)
    return Price.of_model(work.config, model) if trial is None else Price.of(work.config, trial)


def counted(counts: Mapping[str, int | None], ended: JobPhase) -> Tokens | None:
    """The provider's count of a job that *ended* so; None where its figures are none, or cannot be.

    The gateway writes 0 for what is not set: that is a figure only of a job that says otherwise too that it answered
    nothing (codex/decisions/0014).
    """
    read, written, answered = (counts.get(name) for name in ("input_tokens", "output_tokens", "succeeded"))
    silent = ended is JobPhase.COMPLETED and not counts.get("failed")
    nothing = not silent and (answered == 0 or (ended is JobPhase.FAILED and not answered))
    if read is None or not ((read and written) or nothing) or max(read, written or 0) > MOST_TOKENS:
        return None
    return Tokens(read, written or 0, min(counts.get("cached_tokens") or 0, read))


def counted_of(attempt: Mapping[str, Any]) -> Tokens | None:
    """The same for an attempt of `attempts.json`."""
    return counted(attempt["counts"], phase_of(attempt["state"]))


def check(config: Config, committed: Iterable[float | None], planned: float | None, what: str, where: Path) -> None:
    """Raise BudgetExceeded when *planned* on top of what is *committed* would pass `budget.max_usd`.

    *where* is the run's frozen config: an edit of another file would not reach this run.
    """
    limit = config["budget"]["max_usd"]
    if limit is None:
        return
    total = estimates.total(committed)
    if planned is None or total is None:
        lacking, remedy = "the price of a model", f"add the model under prices.models in {where}"
        if planned is not None:
            lacking = "what was submitted before may have cost"
            remedy = f"{remedy}, put back its ledgers or batch_inputs/ if they are lost"
        raise BudgetExceeded(
            f"{what}: {_cannot_be_kept(limit)} while {lacking} is not known.",
            kept="Nothing was sent for it. Results of running jobs are still collected.",
            hint=f"{remedy}, or remove budget.max_usd there; then doit resume",
        )
    if total + planned > limit:
        raise BudgetExceeded(
            f"{what} may cost {plain.usd(planned)}; with {plain.usd(total)} spent and committed that passes "
            f"budget.max_usd = {plain.usd(limit)}.",
            kept="Nothing was sent for it. Results of running jobs are still collected.",
            hint=f"raise budget.max_usd in {where}, then doit resume",
        )


def refuse_unpriced(config: Config, unpriced: Iterable[Trial], where: Path, resume: str) -> None:
    """Raise BudgetExceeded when there is a limit and a trial whose price, to be counted against it, nobody knows.

    Of the whole run, not of that trial's parts: what the others cost would be spent towards a comparison that
    then cannot be finished within the limit.
    """
    limit = config["budget"]["max_usd"]
    models = {trial.model: trial for trial in unpriced}
    if limit is None or not models:
        return
    names = [estimates.without_price(config, trial) for trial in models.values()]
    keys = [f"prices.models.{trial.alias}" for trial in models.values()]
    raise BudgetExceeded(
        f"{_cannot_be_kept(limit)}: no price for {'; '.join(names)}.",
        where=str(where),
        kept="Nothing was sent. Results of running jobs are still collected.",
        hint=f"add {', '.join(keys)} (input_per_mtok, output_per_mtok) to {where}, or set budget.max_usd: null there; "
        f"then {resume}",
    )


def _cannot_be_kept(limit: float) -> str:
    return f"budget.max_usd = {plain.usd(limit)} cannot be kept"
