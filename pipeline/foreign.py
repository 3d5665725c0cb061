"""Files that are not what a phase wrote: edited by hand, or put there by something else.

A phase that used one as input would publish it under our name. So it is refused, until the phase that
wrote the file has run again; under `from=` or `only=` that phase may not be among those chosen. One
that stands where a phase is about to write is moved aside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline import disk, fingerprints, graph, jsonl, parts
from pipeline.decision import Question, Refuse, base
from pipeline.errors import DamagedArtifact
from pipeline.fingerprints import Fingerprints
from pipeline.manifest import LEGACY


def inputs(question: Question) -> Iterator[tuple[str, Refuse]]:
    """The name of each input that was edited since its phase recorded it; a missing one is named by other reasons."""
    workspace = question.workspace
    for name, writer, slug in graph.sources(question.phase, question.slugs) if question.input_names else ():
        facts = Question(writer, slug, workspace).stage.outputs.get(name)
        if facts is None:
            continue
        seen = workspace.fingerprints.look(name)
        if seen is None or fingerprints.kind_of(seen) != "file":
            continue
        if workspace.fingerprints.of(name, seen) == facts["sha256"]:
            continue
        if question.phase.name == "parse" and writer.name == "download" and not _holds_asked_ids(question):
            continue  # parse counts, and names the ids that are missing or too many
        yield (
            name,
            Refuse(
                f"{base(name)} is not what {writer.name} wrote, so it is not used; run {writer.name} first, which "
                f"makes it again: doit resume rid={workspace.rid}"
            ),
        )


def _holds_asked_ids(question: Question) -> bool:
    """Whether the combined results answer what was asked, each once and in order: then only their content differs."""
    try:
        index = question.workspace.index(question.slug)
        lines = jsonl.lines(question.trial.combined)
        for part in index.parts if index is not None else ():
            ids = parts.IdsDigest()
            for line in itertools.islice(lines, part.rows):
                ids.add(jsonl.loads(line.data)["custom_id"])
            if ids.hexdigest() != part.ids_sha256:
                return False
        return index is not None and next(lines, None) is None
    except (DamagedArtifact, jsonl.BadJson, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def outputs_set_aside(question: Question, say: Callable[[str], None]) -> Iterator[None]:
    """For this block, move outputs that are not the recorded ones away: nothing unknown is silently replaced.

    What the block then writes anew to the last byte (a kill had come before the record) is not kept twice.
    """
    known = question.workspace.fingerprints
    expected = _outputs(question)
    moved = []
    for path, recorded in expected.items():
        seen = fingerprints.look(path)
        if seen is None or ((is_file := fingerprints.kind_of(seen) == "file") and seen.st_size == 0):
            continue
        # Under `-n` with threads, another trial's pass of the queue may just be putting a part of this one right.
        with suppress(FileNotFoundError):
            if not is_file or known.sha256(path) != recorded:
                moved.append(disk.set_aside(path))
            elif question.stage.format == LEGACY:
                aside = disk.set_aside(path, LEGACY)
                say(f"the earlier tool's {question.relative(path)} is kept as {aside.name}")
    try:
        yield
    finally:
        folders = {path.parent for path in expected}
        for aside in sorted(entry for folder in folders for entry in folder.glob(f"*.{disk.DAMAGED}.*")):
            original = aside.with_name(aside.name.split(f".{disk.DAMAGED}.")[0])
            if _same_content(aside, original, known):
                disk.remove(aside)
            elif aside in moved:
                found = "was not what was recorded" if expected[original] else "stood in no record"
                say(f"{question.relative(original)} {found}; kept as {aside.name}")


def _outputs(question: Question) -> dict[Path, str | None]:
    """The files the phase is about to write -> the sha256 they are known by."""
    if question.phase.name != "build":
        stage, root = question.stage, question.workspace.paths.root
        recorded = {root / name: facts["sha256"] for name, facts in stage.outputs.items()}
        # Without a sha256 a part's results are the earlier tool's, which the queue reads as they are.
        listed = (part for part in stage.artifacts.get("parts", ()) if "sha256" in part)
        results = {root / part["path"]: part["sha256"] for part in listed}
        return {**dict.fromkeys(question.targets), **recorded, **results}
    # build's own record is the index; of what was sent, the ledgers know, also where the index is an older one.
    trial, workspace = question.trial, question.workspace
    known: dict[str, str] = {}
    index_sha256 = None
    try:
        index = workspace.index(question.slug) if fingerprints.kind(trial.index) == "file" else None
    except DamagedArtifact:
        index = None
    if index is not None:
        index_sha256 = workspace.fingerprints.sha256(trial.index)
        known = {part.part: part.sha256 for part in index.parts}
    known |= workspace.sent_parts(question.slug)
    return {trial.index: index_sha256, **{path: known.get(path.stem) for path in trial.all_part_requests()}}


def _same_content(one: Path, other: Path, known: Fingerprints) -> bool:
    if not fingerprints.kind(one) == fingerprints.kind(other) == "file":
        return False
    return disk.sha256_of(one)[0] == known.sha256(other)
