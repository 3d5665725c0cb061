"""Inputs that are not what their phase wrote: edited by hand, or put there by something else.

A phase that used one would publish it under our name. So it is refused, until the phase that wrote
the file has run again; under `from=` or `only=` that phase may not be among those chosen.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from pipeline import fingerprints, graph, jsonl, parts
from pipeline.decision import Question, Refuse, base
from pipeline.errors import DamagedArtifact


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
