"""What the earlier tool left on disk beside its manifests, read and never changed.

    results/<part>/results.jsonl, BIJOutputSet.jsonl      the rows of a part; the oldest folders have no `_pNN`
    results/<part>_job.json                               the job resource as the service gave it
    results/<part>_OUTPUT_DATASET_ID.txt                  `ID` or `accounts/A/datasets/ID`
    batch_inputs/t0_control.jsonl                         requests; with the prompt set `t0_brief_control.jsonl`;
                 t0_control_part01.jsonl  t0_control.p01.jsonl       in shards

A trace that cannot be read as what it should be still says that something was submitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import disk, jsonl, manifest, parts
from pipeline.errors import DamagedArtifact, FutureVersion
from pipeline.manifest import OlderManifest
from pipeline.paths import RunPaths
from pipeline.upgrade import group_of, part_name

# Where manifests of any age lie below the folder of a run.
MANIFESTS = (
    "*/results/trial_manifest.json",
    "*/trial_manifest.json",
    "*/results/run_manifest.json",
    "results/trial_manifest.json",
    "results/run_manifest.json",
)
_RUN_FILES = (
    "batch_inputs",
    "control_registry.json",
    "effective_config.yaml",
    "multi_trial_manifest.json",
    "run_state.json",
    "shared_controls",
)
_ROWS = ("results.jsonl", "BIJOutputSet.jsonl")  # the first that is there and not empty
_JOB = "_job.json"
_OUTPUT = "_OUTPUT_DATASET_ID.txt"
_PART = re.compile(r"t[0-9]+(e-?[0-9]+)?_[a-z][a-z0-9_]*")
_LONGEST = 100  # characters of a part's name; file systems allow 255 and files in its folder carry it too
_REQUESTS = re.compile(
    r"(?P<temp>t[0-9]+)_(?:(?P<set>.+)_)?(?P<condition>control|treatment)(?:(?:_part|_p|\.p)(?P<number>[0-9]+))?"
)
_JOBS_BLOCK = re.compile(rb'"jobs"\s*:\s*\{([^{}]*)')
_JOBS_ENTRY = re.compile(rb'"([^"\\]+)"\s*:\s*(\[[^\[\]]*\]?|"[^"\\]*"|null)')
_JOBS_NAME = re.compile(rb'"([^"\\]*)"|(null)')


@dataclass(frozen=True)
class Trace:
    """What is known of one part's submission; names without their `accounts/.../` prefix."""

    job: str | None = None
    account: str | None = None
    input_dataset: str | None = None
    output_dataset: str | None = None
    model: str | None = None
    state: str | None = None
    rows: Path | None = None


def is_earlier_run(run: RunPaths) -> bool:
    """Whether the earlier tool began *run*: its own files say so, or an old manifest.

    So does a manifest of any kind without a config, which a run of this tool has from the first moment on, unless it
    has lost it: then what else is here tells.
    """
    if any((run.root / name).exists() for name in _RUN_FILES):
        return True
    manifests = _manifests(run)
    if any(_is_old(path) for path in manifests):
        return True
    return bool(manifests) and not run.config.exists() and not is_ours(run)


def is_ours(run: RunPaths) -> bool:
    """Whether what this tool alone writes shows that it began *run*, which lacks its record and config.

    A list of parts that names what it was built from; without any list, a ledger or a phase recorded with its settings.
    A run that was taken over has lists and ledgers too, but nothing was built there; a manifest may have been migrated.
    """
    if lists := [index for path in sorted(run.indexes()) if (index := parts.usable(path)) is not None]:
        return any(index.inputs for index in lists)
    return any(run.ledgers()) or any(map(_has_settings, _manifests(run)))


def of_parts(results: Path) -> dict[str, Trace]:
    """Part -> what the folder *results* shows of it, in the order of the parts."""
    found: dict[str, Trace] = {}
    entries = sorted(results.iterdir()) if results.is_dir() else []
    for path in entries:
        if path.is_dir() and _PART.fullmatch(path.name):
            rows = next((path / name for name in _ROWS if _is_filled(path / name)), None)
            if rows is not None or any(path.iterdir()):
                _note(found, path.name, rows=rows)
        elif path.name.endswith(_JOB) and _PART.fullmatch(path.name.removesuffix(_JOB)):
            _note(found, path.name.removesuffix(_JOB), **_job(path))
        elif path.name.endswith(_OUTPUT) and _PART.fullmatch(path.name.removesuffix(_OUTPUT)):
            _note(found, path.name.removesuffix(_OUTPUT), **_named("output_dataset", _first_word(path)))
    return {part: found[part] for part in in_order(found)}


def request_files(folders: Iterable[Path], prompt_set: str | None) -> dict[str, Path]:
    """Part -> the file of its requests: shards rather than the whole they were cut from, the prompt set's own first."""
    best: dict[str, tuple[tuple[bool, bool], Path]] = {}
    sharded = set()
    for path in (path for folder in folders if folder.is_dir() for path in sorted(folder.glob("t*.jsonl"))):
        found = _REQUESTS.fullmatch(path.name.removesuffix(".jsonl"))
        if found is None or found["set"] not in (None, prompt_set):
            continue
        group = f"{found['temp']}_{found['condition']}"
        part = part_name(group, int(found["number"] or 1))
        rank = (found["number"] is not None, found["set"] is not None)
        if rank[0]:
            sharded.add(group)
        if part not in best or rank > best[part][0]:
            best[part] = (rank, path)
    return {part: best[part][1] for part in in_order(best) if best[part][0][0] or group_of(part)[0] not in sharded}


def missing_requests(expected: Iterable[str], files: Mapping[str, Path]) -> str | None:
    """The first file of requests that is not among *files*, of the *expected* parts."""
    wanted = set(expected)
    absent = in_order(wanted - files.keys())
    if not absent:
        return None if files else "batch_inputs/t<T>_<condition>.jsonl"
    group, number = group_of(absent[0])
    several = part_name(group, 2) in wanted
    return f"batch_inputs/{group}_part{number:02d}.jsonl" if several else f"batch_inputs/{group}.jsonl"


def in_order(names: Iterable[str]) -> list[str]:
    """Names of parts by group and number, so that p100 follows p99."""
    return sorted(names, key=group_of)


def split_name(name: str | None) -> tuple[str | None, str | None]:
    """(account, id) of `accounts/A/things/ID` or of the bare `ID`."""
    steps = (name or "").strip().split("/")
    account = steps[1] if len(steps) == 4 and steps[0] == "accounts" else None
    return account or None, steps[-1] or None


def legible_jobs(data: bytes) -> dict[str, list[str | None]]:
    """The jobs that a damaged manifest still names: its `jobs` block as far as it can be read.

    A key that names no part is left out: what is damaged may say anything, and the names of parts become paths.
    """
    block = _JOBS_BLOCK.search(data)
    return {
        group: [None if null else name.decode(errors="replace") for name, null in _JOBS_NAME.findall(value)]
        for key, value in _JOBS_ENTRY.findall(block[1] if block else b"")
        if _PART.fullmatch(group := key.decode(errors="replace")) and len(group) <= _LONGEST
    }


def _manifests(run: RunPaths) -> list[Path]:
    return [path for pattern in MANIFESTS for path in sorted(run.root.glob(pattern))]


def _has_settings(path: Path) -> bool:
    with suppress(OlderManifest, DamagedArtifact):
        return any(stage.get("settings") for stage in manifest.read(path)["stage_status"].values())
    return False


def _is_old(path: Path) -> bool:
    try:
        manifest.read(path)
    except OlderManifest:
        return True
    except (FileNotFoundError, DamagedArtifact, FutureVersion):
        return False
    return False


def _note(found: dict[str, Trace], name: str, **facts: Any) -> None:
    part = part_name(name, 1)
    known = found.get(part, Trace())
    found[part] = replace(known, **{key: value for key, value in facts.items() if value is not None})


def _job(path: Path) -> dict[str, str | None]:
    try:
        fields = jsonl.read_document(path)
    except DamagedArtifact:
        return {}
    if not isinstance(fields, dict):
        return {}
    text = {key: value for key, value in fields.items() if isinstance(value, str)}
    job = _named("job", text.get("name") or text.get("id"))
    return {
        **_named("input_dataset", text.get("inputDatasetId") or text.get("input_dataset_id")),
        **_named("output_dataset", text.get("outputDatasetId") or text.get("output_dataset_id")),
        **{key: value for key, value in job.items() if value is not None},
        "model": text.get("model"),
        "state": text.get("state", "").upper().removeprefix("JOB_STATE_") or None,
    }


def _named(key: str, name: str | None) -> dict[str, str | None]:
    account, resource = split_name(name)
    return {key: resource, "account": account}


def _first_word(path: Path) -> str | None:
    words = disk.read_bytes(path).decode(errors="replace").split()
    return words[-1] if words else None


def _is_filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
