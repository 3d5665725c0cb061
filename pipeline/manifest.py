"""`trial_manifest.json`, version 2: what state a trial is in, readable without this tool.

The manifest is the portable mirror of what doit and the ledgers know: for each stage its status,
the artifacts with sha256, size and rows, the inputs it was made from and the settings it used. It is
checked against `schemas/trial_manifest.v2.json` before every write and on every read of bytes that
were not checked before, carries a checksum, and is replaced as a whole. Reading never writes; older
versions and damage are told apart here and dealt with in `upgrade.py` and `repair.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import disk, fingerprints, graph, jsonl, schema, sealed
from pipeline.disk import Written
from pipeline.errors import DamagedArtifact, FutureVersion
from pipeline.fingerprints import Fingerprints
from pipeline.identity import prompt_digest
from pipeline.trials import Trial

VERSION = 2
SCHEMA = "trial_manifest.v2"

PENDING = "pending"
IN_PROGRESS = "in_progress"
COMPLETED = "completed"
STOPPED = "stopped"
FAILED = "failed"

LEGACY = "legacy"  # a stage's `format`: the earlier tool's result, adopted as it is


class OlderManifest(Exception):
    """A manifest of an earlier tool; *document* is its content, to be upgraded."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__("a manifest of an earlier version")
        self.document = document


@dataclass(frozen=True)
class Stage:
    """What is recorded of one phase. *inputs* and *outputs* name files relative to the run's folder."""

    status: str = PENDING
    updated_at: str | None = None
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    identity_version: int = 1
    config_sha256: str | None = None
    tool_version: str | None = None
    duration_s: float | None = None
    error: str | None = None
    format: str | None = None

    @cached_property
    def parts(self) -> Mapping[str, Mapping[str, Any]]:
        """What `downloaded` records of each part's results, by the part's name."""
        return {entry["job_key"]: entry for entry in self.artifacts.get("parts", ())}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Stage:
        """A stage from its JSON; keys this version does not know are left in the document, not here."""
        return cls(**{key: value for key, value in document.items() if key in cls.__dataclass_fields__})

    def as_json(self) -> dict[str, Any]:
        """The stage's JSON, without what is not known."""
        optional = {
            "outputs": dict(self.outputs),
            "inputs": dict(self.inputs),
            "settings": dict(self.settings),
            "config_sha256": self.config_sha256,
            "tool_version": self.tool_version,
            "duration_s": self.duration_s,
            "error": self.error,
            "format": self.format,
        }
        known = {key: value for key, value in optional.items() if value not in (None, {})}
        if self.settings:
            known["identity_version"] = self.identity_version
        return {"status": self.status, "updated_at": self.updated_at, "artifacts": dict(self.artifacts), **known}


class Manifest:
    """A valid version-2 document in memory; changes reach the disk by `save`."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._stages: dict[str, Stage] = {}  # as read from the document: decisions ask for them again and again

    @classmethod
    def new(cls, run_id: str, trial: Trial, now: str | None = None) -> Manifest:
        """The manifest of a trial that has done nothing yet."""
        now = now or utc_now()
        return cls(
            {
                "schema_version": VERSION,
                "timestamps": {"created_at": now, "updated_at": now},
                "run_id": run_id,
                "trial": {
                    "slug": trial.slug,
                    "model_id": trial.model,
                    "prompt_set": trial.prompt_set,
                    "top_p": trial.decoding.get("top_p"),
                    "top_k": trial.decoding.get("top_k"),
                    "max_new_tokens": trial.decoding.get("max_tokens"),
                },
                "temps": list(trial.temperatures),
                "samples_per_item": trial.samples,
                "prompts": {
                    condition: {"sha256": prompt_digest(text), "tokens": None}
                    for condition, text in trial.prompts.items()
                },
                "datasets": {},
                "jobs": {},
                "job_status": {},
                "job_counts": {},
                "stage_status": {stage: Stage().as_json() for stage in graph.STAGES},
            }
        )

    @property
    def document(self) -> Mapping[str, Any]:
        """The whole document, for reading."""
        return self._document

    def stage(self, name: str) -> Stage:
        """What is recorded of the stage *name* (`downloaded`, `parsed`, ...)."""
        if name not in self._stages:
            self._stages[name] = Stage.of(self._document["stage_status"][name])
        return self._stages[name]

    def stranger(self, run_id: str, slug: str) -> str | None:
        """Whose manifest this is, when it is not that of trial *slug* of run *run_id*: somebody put it there."""
        # One that was upgraded from the earlier tool's may not name its trial.
        whose = str(self._document["run_id"]), str(self._document["trial"].get("slug", slug))
        if whose == (run_id, slug):
            return None
        return f"is that of trial {whose[1]!r} of run {whose[0]!r}, not of {slug!r} of {run_id!r}"

    def set_stage(self, name: str, stage: Stage) -> None:
        """Record *stage*; keys of the old record that this version does not know stay."""
        old = self._document["stage_status"].get(name, {})
        unknown = {key: value for key, value in old.items() if key not in Stage.__dataclass_fields__}
        self._document["stage_status"][name] = {**unknown, **stage.as_json()}
        self._stages.pop(name, None)

    def set_jobs(self, jobs: Mapping[str, Any]) -> None:
        """Mirror the ledgers: `datasets`, `jobs`, `job_status` and `job_counts`, each as a whole."""
        self._document.update(deepcopy(dict(jobs)))

    def save(self, path: Path, memory: Fingerprints | None = None) -> Written | None:
        """Write the manifest, whole or not at all; None when nothing but the time would change.

        *memory* will vouch for what was written.
        """
        try:
            on_disk = jsonl.loads(disk.read_bytes(path))
        except (FileNotFoundError, jsonl.BadJson):
            on_disk = None
        # What has lost its seal is written anew even where it says the same, or it would be found damaged for ever.
        if (
            isinstance(on_disk, dict)
            and sealed.is_intact(on_disk)
            and _without_times(on_disk) == _without_times(self._document)
        ):
            return None
        self._document["timestamps"]["updated_at"] = utc_now()
        document = sealed.sealed(self._document)
        schema.require_none(schema.problems(document, SCHEMA), "manifest")
        disk.make_folder(path.parent)
        self._document = document
        data = jsonl.dumps_pretty(document)
        written = disk.write_bytes(path, data)
        if memory is not None:
            memory.vouch(path, _proof(data))
        return written


def load(path: Path, memory: Fingerprints | None = None) -> Manifest:
    """The manifest at *path*. Bytes that *memory* vouches for were checked before, and are not checked again.

    Raises FileNotFoundError, UnreadableFile, FutureVersion, OlderManifest (version 1, or a version 2
    without checksum), or DamagedArtifact saying what does not hold.
    """
    data = _content(path)
    proof = _proof(data)
    if memory is not None and memory.vouches(path, proof):
        return Manifest(jsonl.loads(data))
    document = _document(data, path)
    found = schema.problems(document, SCHEMA)
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise DamagedArtifact(f"not a valid manifest: {'; '.join(found[:3])}{more}.", where=str(path))
    if memory is not None:
        memory.vouch(path, proof)
    return Manifest(document)


def read(path: Path) -> dict[str, Any]:
    """The document at *path*, a version 2 with the right checksum; raises as `load`."""
    return _document(_content(path), path)


def _content(path: Path) -> bytes:
    kind = fingerprints.kind(path)
    if kind in ("folder", "special"):
        raise DamagedArtifact(f"a {kind} stands in its place.", where=str(path))
    try:
        return disk.read_bytes(path)
    except FileNotFoundError:
        if kind is None:
            raise
        raise DamagedArtifact("a link to nothing stands in its place.", where=str(path)) from None


def _document(data: bytes, path: Path) -> dict[str, Any]:
    document = jsonl.document(data, path)
    if not isinstance(document, dict):
        raise DamagedArtifact(f"holds a JSON {type(document).__name__}, not an object.", where=str(path))
    version = document.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise DamagedArtifact(f"its schema_version is {version!r}.", where=str(path))
    if version > VERSION:
        raise FutureVersion(
            f"is a version {version} manifest; this tool knows versions up to {VERSION}.",
            where=str(path),
            kept="Nothing was read further and nothing was written.",
            hint="update trialmake, or use the version that wrote this run",
        )
    if version < VERSION or sealed.CHECKSUM not in document:
        if sealed.is_like_sealed(document):
            raise DamagedArtifact("its version or its checksum has lost its name (a damaged disk).", where=str(path))
        raise OlderManifest(document)
    if not sealed.is_intact(document):
        raise DamagedArtifact("its checksum does not fit its content (edited, or a damaged disk).", where=str(path))
    return document


def _proof(data: bytes) -> str:
    """What stands for "these bytes are valid by the schema as it is now"."""
    return hashlib.sha256(schema.text(SCHEMA) + data).hexdigest()


def utc_now() -> str:
    """The time as manifests write it."""
    return utc_text(datetime.now(UTC))


def utc_text(moment: datetime) -> str:
    """*moment*, which has a zone, as manifests write it: ISO 8601, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _without_times(document: Mapping[str, Any]) -> dict[str, Any]:
    times = (
        {**document.get("timestamps", {}), "updated_at": None} if isinstance(document.get("timestamps"), dict) else 0
    )
    return {**document, "timestamps": times, sealed.CHECKSUM: None}
