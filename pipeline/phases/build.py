"""build: every request of a trial exactly once, in parts of one temperature and one condition.

A request is `{"custom_id", "body"}`; the body is what a chat completion takes, without the model
(the job names it). Parts are written beside the old ones first and moved into place together, so a
part that was submitted is never replaced by other requests: that would be another experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline import custom_id, disk, jsonl, parts
from pipeline.config import Config
from pipeline.custom_id import CLOSED, OPEN, RequestId
from pipeline.errors import DamagedArtifact, Refused
from pipeline.identity import VERSION as IDENTITY_VERSION
from pipeline.identity import Settings
from pipeline.parts import Index, Part
from pipeline.paths import RunPaths, TrialPaths
from pipeline.phases import Outcome, Output
from pipeline.queue import attempts
from pipeline.trials import Trial

_STAGING = ".new"  # where parts are written before all of them are moved into place


def build(
    run: RunPaths,
    paths: TrialPaths,
    config: Config,
    trial: Trial,
    *,
    settings: Settings,
    inputs: Mapping[str, str],
    submitted: Mapping[str, str],
) -> Outcome:
    """Write parts and index. *submitted* maps a part to the sha256 of what was sent of it before.

    Raises Refused, with nothing replaced, when the parts of a submitted trial would change.
    """
    staging = paths.inputs / _STAGING
    disk.remove_folder(staging)
    listed = []
    try:
        disk.make_folder(staging)
        for temperature in trial.temperatures:
            for condition in trial.conditions:
                requests = _requests(run, trial, temperature, condition)
                listed += _write_parts(staging, requests, config, temperature, condition)
        listed.sort(key=lambda part: part.part)  # the order of every file that is made from the parts
        _refuse_changes(listed, submitted, paths, trial.model, settings)
        for part in listed:
            disk.move(staging / f"{part.part}.jsonl", paths.part_requests(part.part))
    finally:
        disk.remove_folder(staging)
    _sweep(paths, listed)
    index = Index(tuple(listed), settings, IDENTITY_VERSION, inputs)
    return Outcome(
        {paths.index: Output(parts.write(paths.index, index), len(listed))},
        {"requests": index.rows, "parts": len(listed)},
    )


def messages(system: str, question: str, context: str | None) -> list[dict[str, str]]:
    """The messages of one request; the layout of the user's text is part of the experiment."""
    user = f"Question: {question}" if context is None else f"Passage:\n{context}\n\nQuestion: {question}"
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


def body(trial: Trial, temperature: float, kind: str) -> dict[str, Any]:
    """The request body without its messages: only what the config sets is sent."""
    decoding = trial.decoding
    values: dict[str, Any] = {"temperature": temperature, **decoding.get("extra", {})}
    for key in ("top_p", "top_k", "stop"):
        if decoding.get(key) is not None:
            values[key] = decoding[key]
    if (limit := decoding.get("max_tokens")) is not None:
        values["max_tokens"] = limit[kind] if isinstance(limit, dict) else limit
    return values


def _requests(run: RunPaths, trial: Trial, temperature: float, condition: str) -> Iterator[tuple[str, bytes]]:
    """(custom_id, line) of every request of one temperature and condition: items in order, then samples."""
    system = trial.prompts[condition]
    temp = custom_id.temperature_text(temperature)
    for kind, path in ((CLOSED, run.closed_book), (OPEN, run.open_book)):
        shared = body(trial, temperature, kind)
        for line in jsonl.lines(path):
            item = jsonl.loads(line.data)
            request_body = {**shared, "messages": messages(system, item["question"], item.get("context"))}
            for sample in range(trial.samples):
                name = custom_id.join(RequestId(item["dataset"], item["id"], condition, temp, sample, kind))
                yield name, jsonl.dumps({"custom_id": name, "body": request_body}) + b"\n"


def _write_parts(
    folder: Path, requests: Iterator[tuple[str, bytes]], config: Config, temperature: float, condition: str
) -> list[Part]:
    """Parts below both limits, under numbers first: how many digits the names need is known at the end."""
    shards: list[tuple[Path, parts.IdsDigest, disk.Written]] = []
    waiting = next(requests, None)
    while waiting is not None:
        path = folder / f"{len(shards)}.part"
        ids = parts.IdsDigest()
        with disk.replacing(path) as shard:
            while waiting is not None:
                name, line = waiting
                if ids.count and (
                    ids.count >= config["part_size"] or shard.stream.size + len(line) > config["part_bytes"]
                ):
                    break
                shard.write(line)
                ids.add(name)
                waiting = next(requests, None)
        shards.append((path, ids, shard.written))
    listed = []
    names = parts.names(parts.temperature_label(temperature), condition, len(shards))
    for name, (path, ids, written) in zip(names, shards, strict=True):
        disk.move(path, folder / f"{name}.jsonl")
        listed.append(Part(name, temperature, condition, ids.count, written.size, written.sha256, ids.hexdigest()))
    return listed


def _refuse_changes(
    listed: list[Part], submitted: Mapping[str, str], paths: TrialPaths, model: str, settings: Settings
) -> None:
    new = {part.part: part.sha256 for part in listed}
    changed = sorted(part for part, sha256 in submitted.items() if new.get(part) != sha256)
    lost = (part for part in listed if part.part not in submitted)  # or never sent
    changed += [part.part for part in lost if attempts.sent_otherwise(paths, part, model)]
    if submitted and not changed:  # more items, say, that only fill parts of their own
        old = _listed_as_sent(paths, settings, submitted) or new
        changed = sorted(part for part in old.keys() | new.keys() if old.get(part) != new.get(part))
    if changed:
        raise Refused(
            f"{len(changed)} parts would change, e.g. {changed[0]} of a submitted trial: its items are fixed.",
            where=str(paths.inputs),
            kept="Parts, index, ledgers and results are as they were. Nothing was sent.",
            hint="restore the question files, or start a new run with doit rid=NEW config=PATH",
        )


def _listed_as_sent(paths: TrialPaths, settings: Settings, submitted: Mapping[str, str]) -> dict[str, str]:
    """part -> sha256 in the list of parts that stands there; empty where it is not that of what was *submitted*."""
    with suppress(FileNotFoundError, DamagedArtifact):
        old = parts.read(paths.index)
        listed = {part.part: part.sha256 for part in old.parts}
        if old.settings == settings and submitted.items() <= listed.items():
            return listed
    return {}


def _sweep(paths: TrialPaths, listed: list[Part]) -> None:
    """Remove parts of an earlier, never submitted build that the index no longer lists."""
    keep = {paths.part_requests(part.part) for part in listed}
    for path in paths.all_part_requests():
        if path not in keep:
            disk.remove(path)
