"""A run folder of the earlier tool becomes a run of ours, and nothing in it is paid for twice.

    experiment.yaml                         from manifests and requests, unless one was put there by hand
    sources/<dataset>.jsonl                 its prepared questions, where they are here
    <trial>/batch_inputs/index.json, parts  copies of what it sent, byte for byte
    <trial>/results/<part>/ledger.jsonl     its job; a1/BIJOutputSet.jsonl its rows, byte for byte
    run.json                                last: until then the run is not there, and all of this is done again

Only new files are written. What the earlier tool wrote stays as it is and where it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import config as configuration
from pipeline import (
    custom_id,
    disk,
    environment,
    fingerprints,
    jsonl,
    ledger,
    legacy,
    manifest,
    parts,
    repair,
    runs,
    traces,
)
from pipeline.config import Config
from pipeline.custom_id import CLOSED, OPEN
from pipeline.errors import ConfigError, DamagedArtifact, Refused
from pipeline.identity import VERSION as IDENTITY_VERSION
from pipeline.identity import of_phase
from pipeline.legacy import Found, Share
from pipeline.manifest import LEGACY, OlderManifest
from pipeline.mirror import UNKNOWN
from pipeline.parts import Index
from pipeline.paths import RunPaths, TrialPaths
from pipeline.providers.base import Accepted, Binding, Job, JobPhase, Submission
from pipeline.providers.rows import BadRow, read_row
from pipeline.workspace import Workspace

_NOT_ESTIMATED = {"input_tokens": 0, "output_tokens": 0, "usd": None}
_BY = "the earlier tool"
_BENCHMARKS = {"squad": "squad_v2", "nq": "nq_open", "trivia": "triviaqa"}  # by the first letters of a dataset's name


def refuse_unread(run: RunPaths) -> Refused:
    """For a command that only looks: what `doit resume` would do with the folder."""
    said = list(legacy.describe(legacy.survey(run)))
    return Refused(
        "is a run of the earlier tool that has not been taken over yet.",
        where=str(run.root),
        kept="\n".join(["Nothing was written. Taking it over, with its own files left as they are, means:", *said]),
        hint=f"doit resume rid={run.rid}",
    )


def take_over(run: RunPaths, say: Callable[[str], None]) -> None:
    """Make the folder at *run* a run of ours. Raises FutureVersion, ConfigError or Refused: then it is still none."""
    found = legacy.survey(run)
    say(f"run {run.rid} was begun by the earlier tool; its files stay as they are")
    for sentence in legacy.describe(found):
        say(sentence)
    config = _config(run, found)
    for trial in found:
        _write_trial(run, trial, config, say)
    created = min(str(trial.document["timestamps"]["created_at"]) for trial in found)
    runs.create(run, config, created, LEGACY)


def complete(work: Workspace, say: Callable[[str], None]) -> None:
    """Take in the requests of trials that had none here before: somebody may have put them there since."""
    waiting = [slug for slug in work.trials if fingerprints.kind(work.trial_paths(slug).index) is None]
    for trial in legacy.survey(work.paths) if waiting else []:
        if trial.slug in waiting and trial.shares:
            say(f"{trial.slug}: its requests are here now")
            _write_trial(work.paths, trial, work.config, say)


# --- the config ------------------------------------------------------------------------------------


def _config(run: RunPaths, found: list[Found]) -> Config:
    """The run's config: one that lies there already, else one drawn from what was found; read like any other."""
    if fingerprints.kind(run.config) is None:
        try:
            drawn = configuration.check(_drawn(run, found), base=run.root, where=str(run.root))
        except ConfigError as error:
            error.hint = (
                f"write what the earlier tool was asked to do into {run.config}, then run the same command again"
            )
            raise
        disk.write_bytes(run.config, configuration.frozen_text(drawn))
    config = configuration.read(run.config, variables=environment.variables())
    slugs = [trial.slug for trial in config.trials]
    if sorted(slugs) != [trial.slug for trial in found]:
        raise ConfigError(
            f"its trials are {', '.join(slugs)}; the folder holds {', '.join(trial.slug for trial in found)}.",
            where=str(run.config),
            kept="Nothing else was written.",
            hint="correct it, or remove it and let it be drawn from the folder",
        )
    return config


def _drawn(run: RunPaths, found: list[Found]) -> dict[str, Any]:
    models = {trial.alias: trial.model for trial in found}
    for trial in found:
        unsent = any(share.trace is None and share.rows is None for share in trial.shares)
        if models[trial.alias] != trial.model or (unsent and trial.model == UNKNOWN):
            raise ConfigError("which model it asked cannot be told from what is here.", where=str(trial.source.root))
    answered = all(share.complete for trial in found for share in trial.shares)
    accounts = [share.trace.account for trial in found for share in trial.shares if share.trace and share.trace.account]
    temps = {float(temp) for trial in found for temp in trial.document.get("temps", [])}
    samples = [trial.document.get("samples_per_item") or 1 for trial in found]
    return {
        "name": f"run {run.rid}",
        "provider": "fireworks",
        "models": [{"id": model, "alias": alias} for alias, model in models.items()],
        "prompt_sets": _prompt_sets(found),
        "sources": list(_sources(run, found)),
        "temperatures": sorted(temps | {share.part.temp for trial in found for share in trial.shares}) or [0.0],
        "samples_per_item": max(samples),
        "trials": [
            {"model": trial.alias, "prompt_set": trial.prompt_set, "decoding": dict(trial.decoding)} for trial in found
        ],
        # Another attempt for what the earlier tool paid for is a person's decision.
        "queue": {"requeue": "never" if answered else "ask"},
        "fireworks": {"account_id": accounts[0] if len(set(accounts)) == 1 else None},
    }


def _prompt_sets(found: list[Found]) -> dict[str, dict[str, Any]]:
    """Prompts as they were sent; of one that nothing holds any more, the digest the manifest kept."""
    sets: dict[str, dict[str, Any]] = {}
    for trial in found:
        prompts = sets.setdefault(trial.prompt_set, {})
        recorded: Mapping[str, Any] = trial.document.get("prompts", {})
        for condition in sorted({"control", "treatment", *recorded, *trial.prompts}):
            digest = recorded.get(condition, {}).get("sha256", UNKNOWN)
            text = trial.prompts.get(condition)
            if condition not in prompts or text is not None:
                prompts[condition] = {"text": text if text is not None else f"(not kept; sha256 {digest})"}
    return sets


def _sources(run: RunPaths, found: list[Found]) -> Iterator[dict[str, Any]]:
    """One question file a data set: the prepared rows of what was asked where they are here, else where to put them."""
    rows = _prepared_rows(run)
    asked = {item for trial in found for item in _items(trial)} or set(rows)
    for dataset in sorted({item.dataset for item in asked}) or [UNKNOWN]:
        path = run.root / "sources" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', dataset)}.jsonl"
        mine = [row for item, row in rows.items() if item in asked and item.dataset == dataset]
        if mine:
            _put(path, mine)
        benchmark = next((name for start, name in _BENCHMARKS.items() if dataset.lower().startswith(start)), None)
        yield {
            "dataset": dataset,
            "format": "jsonl",
            "path": path.relative_to(run.root).as_posix(),
            "benchmark": benchmark,
        }


class _Item(NamedTuple):
    dataset: str
    item_id: str
    type: str


def _prepared_rows(run: RunPaths) -> dict[_Item, bytes]:
    """Item -> its row in `prepared/*.jsonl`; a file that is not made of such rows is left out."""
    rows: dict[_Item, bytes] = {}
    for path in sorted(run.prepared.glob("*.jsonl")):
        try:
            items = [(jsonl.loads(line.data), line.data + b"\n") for line in jsonl.lines(path)]
            rows |= {
                _Item(item["dataset"], item["id"], OPEN if "context" in item else CLOSED): row for item, row in items
            }
        except (DamagedArtifact, jsonl.BadJson, KeyError, TypeError):
            continue
    return rows


def _items(trial: Found) -> Iterator[_Item]:
    """Everything the trial asked about."""
    for share in trial.shares:
        for line in jsonl.lines(share.requests):
            name = custom_id.split(jsonl.loads(line.data)["custom_id"])
            yield _Item(name.dataset, name.item_id, name.type)


# --- trials ----------------------------------------------------------------------------------------


def _write_trial(run: RunPaths, trial: Found, config: Config, say: Callable[[str], None]) -> None:
    target = run.trial(trial.slug)
    if trial.source.root != target.root:
        _copy_folders(trial.source, target)
    for share in trial.shares:
        _copy(share.requests, target.part_requests(share.part.part))
        _record(target, trial, share)
    if trial.shares:
        settings = of_phase("build", config, next(t for t in config.trials if t.slug == trial.slug))
        index = Index(tuple(share.part for share in trial.shares), settings, IDENTITY_VERSION, {})
        _put_index(target, index, say)
    if trial.manifest != target.manifest and trial.manifest.is_file():
        _copy_manifest(trial, target)  # last: with it the copy counts as the trial


def _put_index(target: TrialPaths, index: Index, say: Callable[[str], None]) -> None:
    """Write the list of parts unless there is one; what else stands in its place is kept under another name."""
    if parts.usable(target.index) is not None:
        return
    if fingerprints.kind(target.index) is not None:
        aside = disk.set_aside(target.index, LEGACY)
        say(f"{target.slug}: {target.index.name} is no list of parts of this tool; kept as {aside.name}")
    parts.write(target.index, index)


def _record(target: TrialPaths, trial: Found, share: Share) -> None:
    """The part's rows as attempt 1's raw file, and its ledger as far as it is not written yet."""
    if share.trace is None and share.rows is None:
        return  # never submitted
    trace, files = share.trace or traces.Trace(), target.part(share.part.part)
    collected: dict[str, dict[str, Any]] = {}
    if share.rows is not None:
        raw = files.success_rows(1)
        _put(raw, _blocks(share.rows) if share.rows == trace.rows else _rows_for(share.requests, share.rows))
        digest, key = disk.sha256_of(raw)
        collected[raw.name] = {"sha256": digest, "size": key.size}
    job = trace.job or UNKNOWN
    output = trace.output_dataset or UNKNOWN
    if trace.output_dataset:
        _put(files.output_ids, [f"{output}\n".encode()])
    submission = Submission(
        job_id=job,
        input_dataset_id=trace.input_dataset or UNKNOWN,
        output_dataset_id=output,
        requests=share.requests,
        rows=share.part.rows,
        model=trial.model,
        display_name="",
    )
    nothing_to_ask = share.rows is not None and trace.job is None and trace.output_dataset is None
    state = JobPhase.COMPLETED if share.complete or nothing_to_ask else JobPhase.RUNNING
    word = trace.state or ("COMPLETED" if state.terminal else "SUBMITTED")
    known = Job(job, word, state, trial.model, submission.input_dataset_id, output, message=f"taken over from {_BY}")
    path, book = files.ledger, ledger.read(files.ledger)
    attempt = book.last
    if attempt is None:
        # Account and endpoint as far as they are known: an empty one is compared with nothing.
        binding = Binding("fireworks", trace.account or "", "")
        ledger.intend(path, 1, submission, share.part.sha256, binding, _NOT_ESTIMATED)
    if attempt is None or not attempt.accepted:
        ledger.accept(path, 1, Accepted(known, adopted=True))
    if state.terminal and (attempt is None or attempt.ended is None):
        ledger.end(path, 1, known)
    if state.terminal and (attempt is None or attempt.collected is None):
        ledger.collect(path, 1, collected, _BY)


def _copy_folders(source: TrialPaths, target: TrialPaths) -> None:
    """A flat folder's results and reports, in a trial folder of their own; the originals stay."""
    for folder in (source.results, source.reports):
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.is_file() and path.name not in ("trial_manifest.json", "run_manifest.json"):
                _copy(path, target.root / path.relative_to(source.root))


def _copy_manifest(trial: Found, target: TrialPaths) -> None:
    """The trial's manifest as it is; what one that was migrated says of files is true only where it lay."""
    if trial.source.root != target.root:
        with suppress(OlderManifest, DamagedArtifact):
            repair.moved(manifest.load(trial.manifest), target).save(target.manifest)
            return
    _copy(trial.manifest, target.manifest)


def _copy(source: Path, target: Path) -> None:
    if source != target:
        _put(target, _blocks(source))


def _put(target: Path, pieces: Iterable[bytes]) -> None:
    """Write *target* unless it is there: a takeover that was cut off is simply done again."""
    if fingerprints.kind(target) is not None:
        return
    disk.make_folder(target.parent)
    with disk.replacing(target) as file:
        for piece in pieces:
            file.write(piece)


def _blocks(path: Path) -> Iterator[bytes]:
    with disk.readable(path), open(path, "rb") as stream:
        while block := stream.read(disk.READ_BLOCK):
            yield block


def _rows_for(requests: Path, rows: Path) -> Iterator[bytes]:
    """The lines of *rows* that answer one of *requests*."""
    wanted = {jsonl.loads(line.data)["custom_id"] for line in jsonl.lines(requests)}
    for line in jsonl.lines(rows):
        try:
            answered = read_row(line.data).custom_id in wanted
        except BadRow:
            continue
        if answered:
            yield line.data + b"\n"
