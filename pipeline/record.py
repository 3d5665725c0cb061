"""`run.json`, the run's own record: who it is, the config as last accepted, its trials, how far its own phases are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline import disk, fingerprints, jsonl, schema, sealed
from pipeline.errors import DamagedArtifact, FutureVersion
from pipeline.manifest import Stage
from pipeline.paths import RunPaths

SCHEMA = "run.schema"
VERSION = 1


@dataclass(frozen=True)
class Record:
    """The content of `run.json`. *origin* is "legacy" for a run that the earlier tool began."""

    rid: str
    created_at: str
    tool_version: str
    config_sha256: str
    config: Mapping[str, Any]
    sources_base: str
    trials: tuple[str, ...]
    stages: Mapping[str, Stage]
    source_sha256: str | None = None  # of the config file the run was made from
    origin: str | None = None

    def save(self, path: Path) -> None:
        """Write the record, whole or not at all; nothing when it would not change."""
        document = sealed.sealed(
            {
                **{key: value for key, value in vars(self).items() if value is not None},
                "schema_version": VERSION,
                "trials": list(self.trials),
                "stages": {name: stage.as_json() for name, stage in self.stages.items()},
            }
        )
        schema.require_none(schema.problems(document, SCHEMA), "run record")
        data = jsonl.dumps_pretty(document)
        try:
            if disk.read_bytes(path) == data:
                return
        except FileNotFoundError:
            pass
        disk.write_bytes(path, data)


def read_record(path: Path) -> Record:
    """The record at *path*. Raises FileNotFoundError, UnreadableFile, FutureVersion or DamagedArtifact."""
    if fingerprints.kind(path) == "folder":
        raise DamagedArtifact("a folder stands in its place.", where=str(path))
    document = jsonl.read_document(path)
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise FutureVersion(
            f"is of version {version}; this tool knows versions up to {VERSION}.",
            where=str(path),
            kept="Nothing was written.",
            hint="update trialmake, or use the version that wrote this run",
        )
    if not isinstance(document, dict) or not sealed.is_intact(document) or _lacks_a_key(document):
        raise DamagedArtifact("is not the record that was written (edited, or a damaged disk).", where=str(path))
    keys = Record.__dataclass_fields__.keys() - {"config", "stages", "trials"}
    return Record(
        **{key: document[key] for key in keys if key in document},
        config=configuration.recorded(document["config"]),
        trials=tuple(document["trials"]),
        stages={name: Stage.of(stage) for name, stage in document["stages"].items()},
    )


def _lacks_a_key(document: Mapping[str, Any]) -> bool:
    """Whether a sealed record lacks a key; its checksum says that a schema-checked writer wrote it."""
    return any(key not in document for key in schema.load(SCHEMA)["required"])


def sources_base(run: RunPaths, record: Record) -> Path:
    """The folder that the paths in the config of *run* are relative to."""
    return Path(os.path.normpath(run.root / record.sources_base))


def relative_base(base: Path, root: Path) -> str:
    """The folder of a config's paths as the record names it: relative to the run's, so that both can move."""
    return Path(os.path.relpath(base.resolve(), root.resolve())).as_posix()


def base_of(config: Path) -> Path:
    """The folder that the paths in *config* are relative to: its own, or, for a run's frozen file, the original's."""
    run = RunPaths(config.parent)
    if config.name != run.config.name:
        return config.parent
    try:
        return sources_base(run, read_record(run.record))
    except (FileNotFoundError, DamagedArtifact):
        return config.parent  # no run's folder
