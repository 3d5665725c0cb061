"""Decide whether a phase's work is already on disk. Nothing else may say "skip".

Each phase has its reasons to run as a column of small functions, cheapest first; the first that
speaks decides. Content decides, not time, and existence proves nothing: outputs are compared with
the sha256 recorded when they were written, inputs with what they were when the phase last ran, the
settings in use with those of that time. A predicate reads files and records; it never writes, waits
or connects. In doubt the answer is Run, except where money is at stake: then Refuse, or ask the
provider (which is submit's work, not this file's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline import fingerprints, foreign, graph, identity, manifest, parts, paths, sent
from pipeline.decision import Decision, Question, Refuse, Repair, Run, Skip, base
from pipeline.errors import DamagedArtifact
from pipeline.manifest import COMPLETED, LEGACY
from pipeline.workspace import Workspace

_FORGOTTEN = "forgotten: doit forget asked for it again"


Reason = Callable[[Question], Decision | None]


def decide(phase: str, workspace: Workspace, slug: str = "") -> Decision:
    """What to do about *phase* of trial *slug* (empty for a run-level phase), from disk and records as they are now.

    Raises UnreadableFile when something cannot be read: that is neither done nor damaged.
    """
    question = Question(graph.BY_NAME[phase], slug, workspace)
    for reason in (earlier_tool, *REASONS[phase]):
        decision = reason(question)
        if decision is not None:
            return decision
    return Skip(_description(question))


# --- reasons every recorded phase shares, cheapest first ---------------------------------------


def earlier_tool(question: Question) -> Decision | None:
    """In a run that was taken over, the earlier tool's results stand, or what it left does not suffice."""
    standing = question.standing
    if standing is None:
        return None
    if question.phase.name == "build" and (changed := provider_changed(question)) is not None:
        return changed
    if question.phase.name == "build" and question.workspace.index(question.slug) is not None:
        requests = requests_changed(question)
        if requests is not None:
            return Refuse(requests.reason)
    return {"skip": Skip, "run": Run, "refuse": Refuse}[standing.verb](standing.reason)


def forced(question: Question) -> Decision | None:
    """The user asked for it."""
    wanted = question.workspace.forced
    if question.phase.name not in wanted and "all" not in wanted:
        return None
    if question.phase.name == "prepare" and _sources_gone(question) and outputs_damaged(question) is None:
        return None  # nothing to read again; what was prepared holds
    return Run("forced by force=")


def forgotten(question: Question) -> Decision | None:
    """The user named it to `doit forget`, and it has no record that could be stale."""
    name = f"{question.phase.name}:{question.slug}"
    return Run(_FORGOTTEN) if name in question.workspace.forgotten else None


def not_recorded(question: Question) -> Decision | None:
    """There is no record of a completed run of the phase."""
    stage = question.stage
    if stage.status == COMPLETED:
        return None
    match stage.status:
        case manifest.PENDING:
            return Run(_FORGOTTEN if stage.outputs else "not done yet")
        case manifest.FAILED:
            return Run(f"failed last time: {stage.error.splitlines()[0]}" if stage.error else "failed last time")
        case manifest.STOPPED:
            return Run("was stopped before it ended")
        case _:
            return Run(
                f"not finished yet: {stage.error.splitlines()[0]}" if stage.error else "begun and not finished yet"
            )


def settings_changed(question: Question) -> Decision | None:
    """A setting the phase uses differs from the one it ran with."""
    stage = question.stage
    if stage.format == LEGACY:
        return None  # the earlier tool's results are taken as they are; force= rewrites them
    workspace, phase = question.workspace, question.phase.name
    trial = workspace.trials[question.slugs[0]]
    changes = identity.changes(phase, stage.settings, stage.identity_version, workspace.config, trial)
    return Run(f"setting {'; '.join(changes)}") if changes else None


def outputs_damaged(question: Question) -> Decision | None:
    """A recorded output is gone, damaged or foreign."""
    recorded = question.stage.outputs
    for name in question.target_names:
        if name not in recorded:
            return Repair(f"{base(name)}: not in the record")
    for name, facts in recorded.items():
        problem = question.workspace.damage(name, facts["sha256"], facts["size"])
        if problem:
            return Repair(problem)
    return None


def inputs_foreign(question: Question) -> Decision | None:
    """An input is not what its phase wrote, and no phase of this invocation will repair it first."""
    # A reader cannot tell: the phases before this one have not run. The plan, which knows them, looks by itself.
    return None if question.workspace.readonly else next((found for _, found in foreign.inputs(question)), None)


def inputs_changed(question: Question) -> Decision | None:
    """An input is not what the phase was made from."""
    if question.stage.format == LEGACY:
        return None
    return _changed_input(question, question.stage.inputs)


def provider_changed(question: Question) -> Decision | None:
    """Another provider is named than the one that was asked: reports would say that it answered, and at its prices."""
    work = question.workspace
    now = work.config["provider"]
    for slug in question.slugs:
        if slug in work.trials and (asked := sent.provider_asked(work, slug, now)) != now:
            return Refuse(
                f"the provider of a submitted run cannot change (provider: {asked} -> {now}), since {asked} was asked: "
                f"set it back; {_new_run(work)}"
            )
    return None


# --- prepare and build: decided by the question files and the list of parts --------------------


def items_fixed(question: Question) -> Decision | None:
    """The items of a submitted run would change: asked first, since prepare replaces what the run stands on."""
    if not question.stage.settings or not any(map(question.workspace.submitted, question.workspace.trials)):
        return None
    old, new = _prepare_settings(question)
    # How items cluster changes no request; everything else is another experiment.
    changes = identity.differences({**old, "cluster": None}, {**new, "cluster": None})
    if not changes:
        return None
    return Refuse(
        f"the items of a submitted run cannot change ({'; '.join(changes)}): {_ways_on(question, old, new)}; "
        f"{_new_run(question.workspace)}"
    )


def sources_changed(question: Question) -> Decision | None:
    """A question file or how it is read differs; an absent source is no reason while the prepared items hold."""
    changes = identity.differences(*_prepare_settings(question))
    return Run(f"setting {'; '.join(changes)}") if changes else None


def trial_renamed(question: Question) -> Decision | None:
    """A submitted trial is no longer in the config: under this trial's name it would be paid again."""
    workspace = question.workspace
    if question.slug in workspace.record.trials:
        return None
    gone = [slug for slug in workspace.record.trials if slug not in workspace.trials and workspace.submitted(slug)]
    gone += [slug for slug in workspace.gone_trials() if sent.asked_the_same(question, slug)]  # gone since longer
    if not gone:
        return None
    return Refuse(
        f"the submitted trial {gone[0]} is no longer in the config: give it back its model, alias, prompt set and "
        f"decoding, or {_new_run(workspace)}"
    )


def model_changed(question: Question) -> Decision | None:
    """Another model was asked, and no list of parts is there to tell: the requests themselves name none."""
    with suppress(DamagedArtifact):
        if question.workspace.index(question.slug) is not None:
            return None  # `requests_changed` has more to say
    return _asked_otherwise(question)


def index_missing(question: Question) -> Decision | None:
    """There is no list of parts: not yet, or not any more."""
    (name,) = graph.names(graph.BY_NAME["build"].targets, [question.slug])
    seen = question.workspace.fingerprints.look(name)
    if seen is None:
        return Repair(f"{base(name)}: missing") if question.trial.all_part_requests() else Run("not built yet")
    if (kind := fingerprints.kind_of(seen)) != "file":
        return Repair(f"{base(name)}: a {kind} stands in its place")
    return None if seen.st_size else Repair(f"{base(name)}: empty")


def index_damaged(question: Question) -> Decision | None:
    """The list of parts is not what build wrote."""
    try:
        question.workspace.index(question.slug)
    except DamagedArtifact as damage:
        return Repair(f"{question.trial.index.name}: {damage.what}")
    return None


def requests_changed(question: Question) -> Decision | None:
    """A setting that is part of the requests differs: another experiment, once something was submitted."""
    index, workspace = _index(question), question.workspace
    trial = workspace.trials[question.slug]
    found = identity.changes("build", index.settings, index.identity_version, workspace.config, trial)
    if not found:
        return None
    changes = "; ".join(found)
    if not workspace.submitted(question.slug):
        return Run(f"setting {changes}")
    if not sent.is_listed_in(question, index):
        # build compares with that, but the requests name no model.
        return _asked_otherwise(question) or Repair(f"{question.trial.index.name}: is not the list of what was sent")
    return Refuse(f"the requests of a submitted run cannot change ({changes}); {_new_run(workspace)}")


def prepared_changed(question: Question) -> Decision | None:
    """The prepared items are not those the parts were made from."""
    return _changed_input(question, _index(question).inputs)


def parts_damaged(question: Question) -> Decision | None:
    """A part's requests are gone or differ from the list."""
    folder, damage = question.relative(question.trial.inputs), question.workspace.damage
    files = ((f"{folder}/{paths.requests_file(part.part)}", part) for part in _index(question).parts)
    problems = (damage(name, part.sha256, part.size) for name, part in files)
    return _repair(problem for problem in problems if problem)


# --- submit and download: decided by ledgers and results ----------------------------------------


def results_here(question: Question) -> Decision | None:
    """Every answer is on disk, so there is nothing to submit (and no ledger need be read)."""
    stage = question.workspace.manifest(question.slug).stage("downloaded")
    if stage.status == COMPLETED and stage.format == LEGACY:
        return Skip("the earlier tool's results are here")
    if stage.status != COMPLETED or damaged_parts(question):
        return None
    return Skip(f"all {len(_index(question).parts)} parts have their results")


def model_unknown(question: Question) -> Decision | None:
    """A part was never submitted, and which model the earlier tool asked cannot be told."""
    from pipeline.mirror import UNKNOWN  # reads ledgers; a run with all its results needs none

    if question.workspace.trials[question.slug].model != UNKNOWN or parts_unsubmitted(question) is None:
        return None
    return Refuse(f"which model was asked is not known: name it in {question.workspace.paths.config}")


def requests_stale(question: Question) -> Decision | None:
    """The requests are not those that would be built now, and no phase of this invocation will build them first."""
    # A reader cannot tell: build has not run. The plan, which knows it, looks by itself.
    return None if question.workspace.readonly else stale_requests(question.workspace, question.slug)


def stale_requests(workspace: Workspace, slug: str) -> Refuse | None:
    """Why the requests that stand there, of which none was sent, are not to be paid for; None when they are."""
    question = Question(graph.BY_NAME["build"], slug, workspace)
    if question.standing is not None or workspace.index(slug) is None or workspace.submitted(slug):
        return None
    decision = requests_changed(question) or prepared_changed(question)
    if decision is None:
        return None
    return Refuse(
        f"the requests are not those that would be built now ({decision.reason}); run build first: "
        f"doit resume rid={workspace.rid}"
    )


def parts_unsubmitted(question: Question) -> Decision | None:
    """A part has neither a job the provider accepted nor its results."""
    missing = []
    index = _index(question)
    for part in index.parts:
        ledger = question.workspace.ledger(question.slug, part.part)
        if ledger.attempts and (problem := sent.of_another(question, part.part, ledger.attempts[0])) is not None:
            return Refuse(f"{problem}; {_new_run(question.workspace)}")
        if ledger.first is not None and ledger.first.requests_sha256 != part.sha256:
            return Refuse(
                f"{part.part}: the requests are not those that were submitted as {ledger.first.job_id}; "
                f"restore batch_inputs/, or {_new_run(question.workspace)}"
            )
        if ledger.last is None or not ledger.last.accepted:
            missing.append(part.part)
    if not missing:
        return None
    return Run(f"{len(missing)} of {len(index.parts)} parts have no accepted job, e.g. {missing[0]}")


def never_sent(question: Question) -> Decision | None:
    """A part was never submitted, and no phase of this invocation will submit it first."""
    # A reader cannot tell: submit has not run. The plan, which knows it, looks by itself.
    return None if question.workspace.readonly else unsent_parts(question)


def unsent_parts(question: Question) -> Refuse | None:
    """Why download has nothing to wait for: a part was never submitted; None when each was, or is here."""
    work, index = question.workspace, question.workspace.index(question.slug)
    if index is None or not damaged_parts(question):
        return None
    from pipeline.queue.settling import is_untouched  # a run whose results are all here needs none of it

    names = [part.part for part in index.parts]
    unsent = [
        name
        for name in names
        if is_untouched(work, question.slug, name) and not question.trial.part(name).results.exists()
    ]
    if not unsent:
        return None
    return Refuse(
        f"{len(unsent)} of {len(names)} parts were never submitted, e.g. {unsent[0]}; run submit first: "
        f"doit resume rid={work.rid}"
    )


def rows_owed(question: Question) -> Decision | None:
    """Rows have no answer, and the user wants them asked for again."""
    if not question.workspace.asks_again or question.stage.format == LEGACY:
        return None
    parts_here = question.stage.parts.values()
    if any("missing" not in part for part in parts_here):
        return Run("an earlier version did not record whether all rows have an answer")
    missing = sum(part["missing"] for part in parts_here)
    return Run(f"{missing:,} rows have no answer and may be asked for again") if missing else None


def parts_undone(question: Question) -> Decision | None:
    """A part's results are gone, damaged or were never complete."""
    return _repair(damaged_parts(question))


def damaged_parts(question: Question) -> list[str]:
    """What is wrong with each part's recorded results, one sentence a part."""
    known = question.workspace.fingerprints
    return known.once(f"{question.slug}/damaged parts", lambda: list(_damaged_parts(question)))


def _damaged_parts(question: Question) -> Iterator[str]:
    index = question.workspace.index(question.slug)
    if index is None:
        yield "there is no list of parts"
        return
    recorded = question.workspace.manifest(question.slug).stage("downloaded").parts
    for part in index.parts:
        entry = recorded.get(part.part)
        if entry is None:
            yield f"{part.part}: no results recorded"
            continue
        problem = question.workspace.damage(entry["path"], entry.get("sha256"), entry["size"])
        if problem:
            yield f"{part.part}/{problem}"


def all_here(workspace: Workspace, slug: str) -> bool:
    """Whether each part of the trial has the results that were recorded of it; no where there is no list of parts.

    Never said of the earlier tool's: its record knows no part, and what is lost of one may have to be paid for.
    """
    stage = workspace.manifest(slug).stage("downloaded")
    if stage.status != COMPLETED or stage.format == LEGACY:
        return False
    return not damaged_parts(Question(graph.BY_NAME["submit"], slug, workspace))


# --- what the reasons look at ---------------------------------------------------------------------


def _prepare_settings(question: Question) -> tuple[identity.Settings, identity.Settings]:
    """What prepare used when it last ran, and what it would use now; a source that is gone counts as unchanged."""
    old = identity.upgraded("prepare", dict(question.stage.settings), question.stage.identity_version)
    recorded = {source["dataset"]: source["sha256"] for source in old.get("sources", [])}
    digests = {name: digest or recorded.get(name) for name, digest in source_digests(question.workspace).items()}
    return old, identity.of_prepare(question.workspace.config, digests)


def _ways_on(question: Question, old: identity.Settings, new: identity.Settings) -> str:
    """How to go on with the items of before: a config can be set back; of a file's old content there may be no copy."""
    before = {source["dataset"]: source["sha256"] for source in old.get("sources", [])}
    now = {source["dataset"]: source["sha256"] for source in new["sources"]}
    kept = [{**source, "sha256": before.get(source["dataset"])} for source in new["sources"]]
    if identity.differences(old, {**new, "sources": kept}):
        return "set it back"
    edited = [
        Path(source["path"]).name
        for source in question.workspace.config["sources"]
        if now[source["dataset"]] != before[source["dataset"]]
    ]
    back = f"put {', '.join(edited)} back as {'they were' if len(edited) > 1 else 'it was'}"
    if outputs_damaged(question):
        return back
    return f"{back}, or go on with the prepared items, which hold: doit resume rid={question.workspace.rid} from=build"


def _sources_gone(question: Question) -> list[str]:
    return [name for name, digest in source_digests(question.workspace).items() if digest is None]


def _changed_input(question: Question, recorded: object) -> Decision | None:
    assert isinstance(recorded, dict)
    known = question.workspace.fingerprints
    for name in question.input_names:
        seen = known.look(name)
        if seen is None:
            return Run(f"{base(name)}: is missing")
        if (kind := fingerprints.kind_of(seen)) != "file":
            return Run(f"{base(name)}: a {kind} stands in its place")
        if name not in recorded:
            return Run(f"{base(name)}: was not an input before")
        if known.of(name, seen) != recorded[name]:
            return Run(f"{base(name)}: changed since")
    return None


def source_digests(workspace: Workspace) -> dict[str, str | None]:
    """dataset -> sha256 of its question file; None for one that is not there."""
    digests: dict[str, str | None] = {}
    for source in workspace.config["sources"]:
        try:
            digests[source["dataset"]] = workspace.fingerprints.sha256(workspace.config.path(source["path"]))
        except FileNotFoundError:
            digests[source["dataset"]] = None
    return digests


def _repair(problems: Iterable[str]) -> Repair | None:
    """Repair with the first of *problems*, and how many parts have others."""
    found = list(problems)
    if not found:
        return None
    more = len(found) - 1
    return Repair(f"{found[0]}{f'; and {more:,} more part' if more else ''}{'s' if more > 1 else ''}")


def _index(question: Question) -> parts.Index:
    index = question.workspace.index(question.slug)
    assert index is not None, "index_missing comes first"
    return index


def _asked_otherwise(question: Question) -> Refuse | None:
    problem = sent.asked_otherwise(question)
    return None if problem is None else Refuse(f"{problem}; {_new_run(question.workspace)}")


def _new_run(workspace: Workspace) -> str:
    return f"for a new run: doit rid=NEW config={workspace.paths.config}"


def _description(question: Question) -> str:
    """Why a phase is current, in words that name the evidence."""
    match question.phase.name:
        case "prepare":
            counts = {name: facts.get("rows") for name, facts in question.stage.outputs.items()}
            text = ", ".join(f"{base(name)}: {_count(count)} items" for name, count in counts.items())
            gone = _sources_gone(question)
            return f"{text}; source of {', '.join(gone)} is gone, the prepared items hold" if gone else text
        case "build":
            index = _index(question)
            return f"{len(index.parts)} parts, {index.rows:,} requests"
        case "submit":
            return f"all {len(_index(question).parts)} parts have an accepted job"
        case "download":
            artifacts = question.stage.artifacts
            missing = sum(part.get("missing", 0) for part in artifacts["parts"])
            without = f", {missing:,} of them without an answer" if missing else ""
            return f"{len(artifacts['parts'])} parts, {_count(artifacts['n_results'])} results{without}"
        case "parse":
            rows = question.stage.artifacts.get("row_count")
            return f"predictions.csv: {_count(rows)} rows = {_count(rows)} unique custom_ids"
        case _:
            outputs = question.stage.outputs
            written = {base(name): outputs.get(name, {}) for name in question.target_names}
            return ", ".join(
                f"{name}: {_count(facts['rows'])} rows" if facts.get("rows") is not None else name
                for name, facts in written.items()
            )


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


_RECORDED: tuple[Reason, ...] = (
    inputs_foreign,
    forced,
    not_recorded,
    settings_changed,
    outputs_damaged,
    inputs_changed,
)

REASONS: dict[str, tuple[Reason, ...]] = {
    "prepare": (items_fixed, forced, not_recorded, sources_changed, outputs_damaged),
    "build": (
        *(trial_renamed, provider_changed, inputs_foreign, model_changed, index_missing, index_damaged),
        *(requests_changed, forced, forgotten, prepared_changed, parts_damaged),
    ),
    "submit": (index_missing, index_damaged, results_here, model_unknown, requests_stale, parts_unsubmitted),
    "download": (
        *(index_missing, index_damaged, never_sent, forced, not_recorded),
        *(rows_owed, parts_undone, outputs_damaged, inputs_changed),
    ),
    "parse": _RECORDED,
    "score": _RECORDED,
    "stats": _RECORDED,
    "costs": (provider_changed, *_RECORDED),
    "report": (provider_changed, *_RECORDED),
    "archive": _RECORDED,
    "index": (provider_changed, *_RECORDED),
}
