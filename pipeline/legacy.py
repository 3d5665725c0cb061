"""What is in a run folder of the earlier tool: its trials, their parts, jobs and answers. Reads only.

A part is what was or was to be submitted: its requests (the file the earlier tool sent), what is known
of its job, and the rows that answer it, wherever they are. A trial whose requests are not all here
has no parts that could be worked with; what is missing is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pipeline import custom_id, disk, fingerprints, jsonl, parts, repair, traces, upgrade
from pipeline.errors import DamagedArtifact, Refused
from pipeline.parts import Part
from pipeline.paths import RunPaths, TrialPaths
from pipeline.providers.rows import BadRow, read_row
from pipeline.restore import BACKUP
from pipeline.traces import Trace

_NO_TRIAL = frozenset({"batch_inputs", "logs", "prepared", "reports", "results", "shared_controls", "sources"})
_MANIFESTS = ("results/trial_manifest.json", "trial_manifest.json", "results/run_manifest.json", "run_manifest.json")
_TAGS = re.compile(r"(?:-tp(?P<tp>[0-9]+))?(?:-tk(?P<tk>[0-9]+))?(?:-mx(?P<closed>[0-9]+)-(?P<open>[0-9]+))?$")


@dataclass(frozen=True)
class Share:
    """One part: the file of its requests and the rows that answer it. *answered* counts its ids that have a row."""

    part: Part
    requests: Path
    trace: Trace | None  # None: nothing says that it was ever submitted
    rows: Path | None
    answered: int

    @property
    def complete(self) -> bool:
        """Whether every request has its row."""
        return self.answered == self.part.rows


@dataclass(frozen=True)
class Found:
    """A trial as the earlier tool left it. *slug* is the folder it will have, *alias* and *prompt_set* make it up."""

    source: TrialPaths
    manifest: Path
    document: Mapping[str, Any]
    alias: str
    prompt_set: str
    decoding: Mapping[str, Any]
    shares: tuple[Share, ...]
    prompts: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None  # the requests that are not here or cannot be used

    @property
    def slug(self) -> str:
        """The trial's folder in the run."""
        return "-".join([self.alias, self.prompt_set, *_tags_of(self.decoding)])

    @property
    def model(self) -> str:
        """The model's full name."""
        return str(self.document["trial"]["model_id"])


def survey(run: RunPaths) -> list[Found]:
    """The trials in the folder of *run*. Raises FutureVersion, UnreadableFile, or Refused when there is none."""
    found: dict[str, Found] = {}
    for root in _trial_folders(run):
        trial = _trial(run, TrialPaths(root))
        known = found.get(trial.slug)
        # A flat folder that was copied to its trial's own: the copy is the trial.
        if known is None or root.name == trial.slug:
            found[trial.slug] = trial
    if not found:
        raise Refused(
            "looks like a run of the earlier tool, but holds no trial.",
            where=str(run.root),
            kept="Nothing was changed.",
            hint="put its results/ or trial folders there, or start a new run under another rid",
        )
    return [found[slug] for slug in sorted(found)]


def describe(trials: list[Found]) -> Iterator[str]:
    """What taking the trials over comes to, one sentence a trial."""
    for trial in trials:
        if trial.missing:
            yield f"{trial.slug}: no requests to work with ({trial.missing}); its results are kept as they are"
            continue
        unsent = [share for share in trial.shares if share.trace is None and share.rows is None]
        complete = sum(share.complete for share in trial.shares)
        said = [f"{complete} of {len(trial.shares)} parts have all their answers"]
        if asked := len(trial.shares) - complete - len(unsent):
            said.append(f"{asked} were submitted and are asked for")
        if unsent:
            rows = sum(share.part.rows for share in unsent)
            said.append(f"{len(unsent)} were never submitted and are now, {rows:,} requests")
        yield f"{trial.slug}: {'; '.join(said)}"


# --- trials ----------------------------------------------------------------------------------------


def _trial_folders(run: RunPaths) -> Iterator[Path]:
    """The folders that hold a trial; the run's own first, when it is a flat one of the oldest kind."""
    for folder in (run.root, *sorted(path for path in run.root.iterdir() if path.is_dir())):
        if folder.name in _NO_TRIAL or folder.name.startswith("."):
            continue
        if _manifest_in(folder).exists() or traces.of_parts(folder / "results"):
            yield folder


def _manifest_in(folder: Path) -> Path:
    places = [folder / name for name in _MANIFESTS]
    return next((path for path in places if fingerprints.kind(path) is not None), places[0])


def _trial(run: RunPaths, source: TrialPaths) -> Found:
    path = _manifest_in(source.root)
    opening = repair.recover(repair.alone(path, source, run.rid))
    document, lost = opening.manifest.document, bool(opening.said) and opening.keep != BACKUP
    alias, prompt_set, decoding = _names(source.root.name if source.root != run.root else "", document["trial"])
    files = traces.request_files((source.inputs, run.root / "batch_inputs"), prompt_set)
    shown = traces.of_parts(source.results)
    jobs = dict(_jobs(document))
    missing = traces.missing_requests({**jobs, **shown}, files)
    shares: list[Share] = []
    prompts: dict[str, str] = {}
    read = cache(_ids)  # several parts may have to be looked for in one file
    try:
        for name in [] if missing else files:
            part, ids, system = _read_requests(name, files[name])
            prompts.setdefault(part.condition, system)
            trace = _trace(shown.get(name), jobs.get(name), document["job_status"].get(name))
            if trace is None and lost:
                trace = Trace()  # a record that is lost may have named a job: nothing says that there was none
            own = [trace.rows] if trace is not None and trace.rows is not None else []
            rows, answered = _most(ids, [*own, *_shared(run, document, part), source.combined], read)
            shares.append(Share(part, files[name], trace, rows, answered))
        _refuse_twice(shares)
    except DamagedArtifact as damage:
        missing, shares = str(damage).splitlines()[0], []
    return Found(source, path, document, alias, prompt_set, decoding, tuple(shares), prompts, missing)


def _names(folder: str, trial: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Alias, prompt set and the decoding that the folder's name tells; all three make up its name again."""
    last = re.sub(r"[^A-Za-z0-9._-]+", "-", trial["model_id"].rpartition("/")[2]).strip("-._") or "model"
    tags = _TAGS.search(folder)
    assert tags is not None  # all of it is optional
    decoding: dict[str, Any] = {}
    if tags["tp"]:
        decoding["top_p"] = float(f"{tags['tp'][0]}.{tags['tp'][1:] or 0}")
    if tags["tk"]:
        decoding["top_k"] = int(tags["tk"])
    if tags["closed"]:
        decoding["max_tokens"] = {"closed": int(tags["closed"]), "open": int(tags["open"])}
    base = folder[: tags.start()]
    prompt_set = trial.get("prompt_set")
    if prompt_set and base.endswith(f"-{prompt_set}"):
        return base.removesuffix(f"-{prompt_set}"), prompt_set, decoding
    if base.startswith(f"{last}-"):
        return last, prompt_set or base.removeprefix(f"{last}-"), decoding
    alias, _, rest = base.rpartition("-")
    return (alias or last), (prompt_set or rest or "default"), decoding


def _tags_of(decoding: Mapping[str, Any]) -> Iterator[str]:
    if "top_p" in decoding:
        yield "tp" + f"{decoding['top_p']:.2f}".rstrip("0").rstrip(".").replace(".", "")
    if "top_k" in decoding:
        yield f"tk{decoding['top_k']}"
    if "max_tokens" in decoding:
        yield f"mx{decoding['max_tokens']['closed']}-{decoding['max_tokens']['open']}"


# --- parts -----------------------------------------------------------------------------------------


def _jobs(document: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """(part, job or None) of every part the manifest lists."""
    for group, names in document["jobs"].items():
        for number, name in enumerate(names, 1):
            yield upgrade.part_name(group, number), name


def _read_requests(name: str, path: Path) -> tuple[Part, frozenset[str], str]:
    """The part in *path*, its ids, and the system prompt of its first request. Raises DamagedArtifact."""
    digest = parts.IdsDigest()
    ids: list[str] = []
    kinds: set[tuple[str, str]] = set()
    system = ""
    for line in jsonl.lines(path):
        try:
            row = jsonl.loads_checked(line.data)
            request = custom_id.split(row["custom_id"])
            texts = {message["role"]: str(message["content"]) for message in row["body"]["messages"]}
        except (jsonl.BadJson, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedArtifact(f"not a request ({error}).", where=f"{path} line {line.number}") from error
        digest.add(row["custom_id"])
        ids.append(row["custom_id"])
        kinds.add((request.temp, request.condition))
        system = system or texts.get("system", "")
    if len(kinds) != 1 or len(set(ids)) != len(ids):
        raise DamagedArtifact(
            "is no part: its ids repeat, or are of several temperatures or conditions.", where=str(path)
        )
    ((temp, condition),) = kinds
    sha256, key = disk.sha256_of(path)
    part = Part(name, float(temp), condition, digest.count, key.size, sha256, digest.hexdigest())
    return part, frozenset(ids), system


def _refuse_twice(shares: list[Share]) -> None:
    """One set of bytes under two parts would be paid for twice."""
    seen: dict[str, str] = {}
    for share in shares:
        other = seen.setdefault(share.part.ids_sha256, share.part.part)
        if other != share.part.part:
            raise DamagedArtifact(f"holds the requests of {other} again.", where=str(share.requests))


def _trace(shown: Trace | None, job: str | None, status: str | None) -> Trace | None:
    """What is known of the part's submission: its breadcrumbs first, then the manifest."""
    account, name = traces.split_name(job)
    if shown is None:
        submitted = name is not None or status not in (None, "pending")
        return Trace(job=name, account=account) if submitted else None
    return Trace(**{**vars(shown), "job": shown.job or name, "account": shown.account or account})


def _most(wanted: frozenset[str], files: list[Path], read: Callable[[Path], frozenset[str]]) -> tuple[Path | None, int]:
    """The first of *files* that answers most of the *wanted* ids, and how many."""
    best: tuple[Path | None, int] = (None, 0)
    for path in files:
        answered = len(wanted & read(path))
        if answered > best[1]:
            best = (path, answered)
    return best


def _shared(run: RunPaths, document: Mapping[str, Any], part: Part) -> list[Path]:
    """The rows of a control that another trial produced, where the manifest's registry says they are."""
    registry = document.get("control_registry", {}).get(parts.temperature_label(part.temp))
    folder = registry.get("shared_rel") if isinstance(registry, dict) and part.condition == "control" else None
    if not isinstance(folder, str) or folder.startswith("/") or ".." in Path(folder).parts:
        return []
    return sorted((run.root / folder).glob("*.jsonl"))


def _ids(path: Path) -> frozenset[str]:
    """The ids of the usable rows in *path*."""
    ids: set[str] = set()
    try:
        for line in jsonl.lines(path):
            try:
                ids.add(read_row(line.data).custom_id)
            except BadRow:
                continue
    except (FileNotFoundError, DamagedArtifact):
        pass
    return frozenset(ids)
