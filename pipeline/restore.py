"""`run.json` and `experiment.yaml`, each restored from the other where one is damaged or gone.

What the record alone knew is found again: when the run was created from its manifests, where the
config lay from where its question files are, and that the items were prepared from the list of parts.
An original that must give way is kept under another name, byte for byte.
"""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline import config as configuration
from pipeline import disk, fingerprints, identity, jsonl, manifest, parts, runs
from pipeline.config import Config
from pipeline.errors import DamagedArtifact, Refused
from pipeline.manifest import COMPLETED, IN_PROGRESS, LEGACY, Stage
from pipeline.parts import Index
from pipeline.paths import RunPaths, resource
from pipeline.record import Record, read_record, relative_base
from pipeline.version import VERSION as TOOL_VERSION

BACKUP = "backup"  # an original that was upgraded
CORRUPT = "corrupt"  # one that was damaged


def open_record(run: RunPaths, *, readonly: bool, say: Callable[[str], None]) -> Record:
    """The run's record, and its frozen config in place; each is restored from the other where one is gone.

    Raises UnreadableFile, FutureVersion, or DamagedArtifact when neither is left; then nothing has changed.
    """
    try:
        record = read_record(run.record)
    except (FileNotFoundError, DamagedArtifact) as damage:
        record = _rebuilt_record(run)
        what = "is gone" if isinstance(damage, FileNotFoundError) else "is damaged"
        only = " (in memory: this command only looks)" if readonly else ""
        say(f"{run.record.name} {what}: rebuilt from {run.config.name} and the manifests{only}.")
        if not readonly:
            if not isinstance(damage, FileNotFoundError):
                say(f"the damaged one is {keep(run.record, CORRUPT).name}")
            record.save(run.record)
    if fingerprints.kind(run.config) is None and not readonly:
        say(f"{run.config.name} is gone: restored from {run.record.name}.")
        disk.write_bytes(run.config, configuration.frozen_text(Config(record.config, run.root)))
    return record


def refuse_without_config(run: RunPaths) -> Refused:
    """For a run of ours that has lost its record and its config: neither can be made from what else is there."""
    return Refused(
        f"neither {run.record.name} nor {run.config.name} is left of this run.",
        where=str(run.root),
        kept="Nothing was changed: ledgers, results and manifests are as they were.",
        hint=f"{_bring_back(run)}; or name another run by rid=, or move this folder away",
    )


def keep(path: Path, tag: str) -> Path:
    """The original under another name, byte for byte; a copy made before a kill serves as well."""
    if fingerprints.kind(path) != "file":
        return disk.set_aside(path, tag)
    digest, _ = disk.sha256_of(path)
    for copy in sorted(path.parent.glob(f"{glob.escape(path.name)}.{tag}.*")):
        if copy.is_file() and disk.sha256_of(copy)[0] == digest:
            return copy
    return disk.copy_aside(path, tag, ".json" if tag == BACKUP else "")


def _bring_back(run: RunPaths) -> str:
    """What to do about a config that is gone and that no record holds."""
    archives = sorted(run.root.glob("*/archive/*.tar.gz"))
    source = f"from {archives[0]} or a backup" if archives else "from a backup"
    return f"put {run.config} back {source}, then run the same command again: {run.record.name} is rebuilt from it"


def _rebuilt_record(run: RunPaths) -> Record:
    from pipeline import traces

    try:
        text = disk.read_bytes(run.config)
    except FileNotFoundError as error:
        raise DamagedArtifact(
            "is damaged, and so its copy of the config cannot be trusted; experiment.yaml is gone too.",
            where=str(run.record),
            kept="Nothing was changed: ledgers, results and manifests are as they were.",
            hint=_bring_back(run),
        ) from error
    config = next(_configs(run))
    for candidate in _configs(run):
        if all(candidate.path(source["path"]).is_file() for source in candidate["sources"]):
            config = candidate
            break
    slugs = tuple(trial.slug for trial in config.trials)
    indexes = [index for slug in slugs if (index := parts.usable(run.trial(slug).index)) is not None]
    sent = sorted(run.sent_trials())
    earlier = traces.is_earlier_run(run) or any(not index.inputs for index in indexes)
    return Record(
        rid=run.rid,
        created_at=runs.creation_of(run),
        tool_version=TOOL_VERSION,
        config_sha256=hashlib.sha256(text).hexdigest(),
        config=config.values,
        sources_base=relative_base(config.base, run.root),
        # Of one that was sent under a name the config no longer gives, build has to know: it would be paid again.
        trials=slugs if set(sent) <= set(slugs) else tuple(sent),
        stages=_prepared(run, config, indexes),
        origin=LEGACY if earlier else None,
    )


def _configs(run: RunPaths) -> Iterator[Config]:
    """The frozen config, read as if it had come from each folder where configs usually lie."""
    for base in (run.root.parent.parent, run.root, resource("examples")):
        yield configuration.read_frozen(run.config, base=base)


def _prepared(run: RunPaths, config: Config, indexes: Sequence[Index]) -> dict[str, Stage]:
    """prepare's stage when a list of parts shows which items it wrote.

    It is done when its question files are gone. Else they are read again, to see whether they are still the same.
    """
    digests: dict[str, str | None] = {}
    for source in config["sources"]:
        path = config.path(source["path"])
        digests[source["dataset"]] = disk.sha256_of(path)[0] if path.is_file() else None
    inputs = indexes[0].inputs if indexes else {}
    outputs = {}
    for path in (run.closed_book, run.open_book):
        name = path.relative_to(run.root).as_posix()
        if not path.is_file() or disk.sha256_of(path)[0] != inputs.get(name):
            return {}
        outputs[name] = {"sha256": inputs[name], "size": path.stat().st_size, "rows": sum(1 for _ in jsonl.lines(path))}
    if None not in digests.values():
        reread = "its record was lost, so the question files are read again"
        return {"prepare": Stage(status=IN_PROGRESS, updated_at=manifest.utc_now(), outputs=outputs, error=reread)}
    settings = identity.of_prepare(config, digests)
    stage = Stage(
        status=COMPLETED,
        updated_at=manifest.utc_now(),
        outputs=outputs,
        settings=settings,
        identity_version=identity.VERSION,
        config_sha256=identity.digest(settings),
    )
    return {"prepare": stage}
