"""What was sent of a trial, against what its config would send now.

The answers are in ledgers, which a run in order need not read: `done.py` asks where a setting differs or a list of
parts is lost. The requests name no model, so ids and requests alone never show whose answers they brought.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from pipeline import identity, parts
from pipeline.decision import Question
from pipeline.errors import DamagedArtifact
from pipeline.manifest import COMPLETED
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.ledger import Attempt


def is_listed_in(question: Question, index: parts.Index) -> bool:
    """Whether each part that was sent stands in *index* as it was sent, model and all: an older list has others."""
    from pipeline.queue import attempts  # a run in order asks for no attempt

    listed = {part.part: part.sha256 for part in index.parts}
    return all(
        (first.number > 1 or first.requests_sha256 == listed.get(part))  # a later one asked for some rows only
        and not attempts.stranger(first, question.trial, part, index.settings["model"])
        for part, first in question.workspace.first_attempts(question.slug).items()
    )


def asked_the_same(question: Question, other: str) -> bool:
    """Whether trial *other*, which the config no longer has, sent what this one would send, or may have."""
    workspace = question.workspace
    trial = workspace.trials[question.slug]
    with suppress(DamagedArtifact):
        if (index := workspace.index(other)) is not None:
            return not identity.changes("build", index.settings, index.identity_version, workspace.config, trial)
    models = {first.model for first in workspace.first_attempts(other).values()}
    return not models or trial.model in models  # where the ledgers are lost too, nothing tells that it did not


def asked_otherwise(question: Question) -> str | None:
    """Why what the ledgers say was asked is not this trial's, in its model or as a whole; None where it is."""
    attempts = question.workspace.first_attempts(question.slug).items()
    return next((found for part, first in attempts if (found := of_another(question, part, first))), None)


def of_another(question: Question, part: str, first: Attempt) -> str | None:
    """The same of one part, by its *first* attempt."""
    from pipeline.queue import attempts  # a run in order asks for no attempt

    problem = attempts.stranger(first, question.trial, part, question.workspace.trials[question.slug].model)
    return f"{part}: {problem}" if problem else None


def provider_asked(workspace: Workspace, slug: str, now: str) -> str:
    """The provider that the trial was submitted to; *now* where nothing was, or nothing speaks against it."""
    stage = workspace.manifest(slug).stage
    recorded = {workspace.record.config.get("provider", now)}
    recorded |= {stage(name).settings.get("provider", now) for name in ("costs", "report")}
    if recorded <= {now} or not (workspace.submitted(slug) or stage("downloaded").status == COMPLETED):
        return now
    # A ledger knows better than a record, which an earlier version let follow the config. It is read for a doubt only.
    for binding in (first.binding for first in workspace.first_attempts(slug).values()):
        if binding.provider:
            return "emulator" if binding.endpoint.startswith("emulator:") else binding.provider
    return str(next(iter(recorded - {now})))
