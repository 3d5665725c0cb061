"""Inputs that are not what their phase wrote: edited by hand, or put there by something else.

A phase that used one would publish it under our name. So it is refused, until the phase that wrote
the file has run again; under `from=` or `only=` that phase may not be among those chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from pipeline import fingerprints, graph, jsonl, parts
from pipeline.decision import Question, Refuse
from pipeline.errors import DamagedArtifact


def inputs(question: Question) -> Iterator[tuple[Path, Refuse]]:
    """Each input that was edited since its phase recorded it; one that is missing is named by other reasons."""
    workspace = question.workspace
    for path in question.inputs:
        name = question.relative(path)
        producer, sha256 = _recorded(question, name)
        seen = fingerprints.look(path)
        if sha256 is None or seen is None or fingerprints.kind_of(seen) != "file":
            continue
        if workspace.fingerprints.of(name, seen) == sha256:
            continue
        if question.phase.name == "parse" and producer == "download" and not _holds_asked_ids(question):
            continue  # parse counts, and names the ids that are missing or too many
        yield (
            path,
            Refuse(
                f"{path.name} is not what {producer} wrote, so it is not used; run {producer} first, which makes it "
                f"again: doit resume rid={workspace.rid}"
            ),
        )


def _recorded(question: Question, name: str) -> tuple[str, str | None]:
    """The phase before this one that wrote the file *name*, and the sha256 it recorded."""
    for phase in itertools.takewhile(lambda phase: phase != question.phase, graph.PHASES):
        for slug in question.slugs if phase.per_trial else ("",):
            if facts := Question(phase, slug, question.workspace).stage.outputs.get(name):
                return phase.name, facts["sha256"]
    return "", None


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
