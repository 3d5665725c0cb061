"""The fault script: rules that a test lays down and that say when, and on what, the service misbehaves.

A rule is a JSON object with one subject (what it matches) and `do` (what then happens):

    {"name": "lost", "call": {"method": "POST", "path": "batchInferenceJobs$"}, "do": {"reset": true, "commit": true}}
    {"job": {"id": "t0-control"}, "do": {"end": {"state": "EXPIRED", "at": 0.6}}}
    {"dataset": {"id": "-in$"}, "do": {"stuck": {"seconds": 3600}}}

Subject: `path` / `id` are regular expressions searched in the decoded path or the resource id. `skip`
lets that many matches pass first (default 0); `times` is how many it then acts on (default 1, null
without end). Of several rules for a call the first that is due acts; those for a job or a dataset add up.

`do` of a call, which may be combined:
    respond      a name of RESPONSES, or {"status", "headers", "json" | "text"}: sent instead of the real answer
    reset        true: the connection is reset instead of an answer
    commit       true: `respond` and `reset` come after the call took effect (the default is before)
    delay        seconds (real ones) before the answer is sent
    edit         {"set": {"a.b": value}, "drop": ["a.b"]} on the answer's JSON
    own_id       true: a create of a job ignores the client's id and invents one; own_output: that of its output
    duplicate    "return": a create of an existing id answers 200 with the old object
    damage       {"how": one of DAMAGES, "at": share of the body that is sent, default 0.5}
    drip         {"bytes": n, "pause": seconds}: the body in small pieces
`do` of a job:
    fail         text: it fails in validation
    stuck        {"in": stage, "seconds": how much longer, default ten years}
    end          {"state": EXPIRED | EARLY_STOPPED | FAILED | CANCELLED, "at": share of rows done, "message"}
    vanish       stage from which on it is gone, as if deleted by someone else
    states       {state: name on the wire}; bare_states true: names without JOB_STATE_
    progress     "strings": numbers of jobProgress as strings
    external_url "serve": the output's externalUrl is a link to its results; or a literal value
    files        {"success" | "error": another file name, or null to leave the file out}
    rows         a list of row faults, {"pick": {...}, "do": ..., ...}: see `row_faults.py`
`do` of a dataset:
    stuck        {"seconds": how much longer it stays UPLOADING, default ten years}
    external_url a literal value
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.emulator import row_faults
from pipeline.emulator.jobs import CANCELLED, EARLY_STOPPED, EXPIRED, FAILED, STAGES
from pipeline.emulator.store import Store

DAMAGES = ("close", "reset", "no_length", "short_length", "chunked", "gzip", "endless")
RESPONSES: dict[str, dict[str, Any]] = {
    "rate_limited": {"status": 429, "json": {"code": 8, "message": "rate limit exceeded", "details": []}},
    "html_502": {"status": 502, "text": "<html><head><title>502 Bad Gateway</title></head></html>"},
    "html_200": {"status": 200, "text": "<html><head><title>Sign in</title></head></html>"},
    "unavailable": {"status": 503, "json": {"code": 14, "message": "upstream connect error", "details": []}},
    "internal": {"status": 500, "json": {"code": 13, "message": "internal error", "details": []}},
    "key_revoked": {
        "status": 403,
        "json": {
            "error": {
                "message": "The API key you provided is invalid.",
                "param": None,
                "code": "UNAUTHORIZED",
                "type": "error",
            },
            "request_id": "00000000-0000-4000-8000-000000000000",
        },
    },
    "quota_full": {
        "status": 400,
        "json": {
            "code": 3,
            "message": "invalid batch inference job: job-submission-count for account emulator, in use: 16, quota: 16",
            "details": [],
        },
    },
    "not_found": {"status": 404, "json": {"code": 5, "message": "resource not found", "details": []}},
    "link_expired": {
        "status": 400,
        "headers": {"Content-Type": "application/xml; charset=UTF-8"},
        "text": "<?xml version='1.0' encoding='UTF-8'?><Error><Code>ExpiredToken</Code>"
        "<Message>The provided token has expired.</Message></Error>",
    },
}

_ENDS = (EXPIRED, EARLY_STOPPED, FAILED, CANCELLED)
_SUBJECTS = {"call": {"method", "path"}, "job": {"id"}, "dataset": {"id"}}
_DEEDS = {
    "call": {"respond", "reset", "commit", "delay", "edit", "own_id", "own_output", "duplicate", "damage", "drip"},
    "job": {
        *("fail", "stuck", "end", "vanish", "states", "bare_states", "progress", "external_url", "files", "rows"),
    },
    "dataset": {"stuck", "external_url"},
}


class BadRule(ValueError):
    """A rule that could never act as meant; the text says why. A misspelt fault would prove nothing."""


def check(rule: Any) -> None:
    """Raise BadRule unless *rule* is one that this page describes."""
    if not isinstance(rule, dict):
        raise BadRule(f"a rule is an object, not {rule!r}")
    subjects = [name for name in _SUBJECTS if name in rule]
    if len(subjects) != 1 or set(rule) - {"name", "do", subjects[0]}:
        raise BadRule(f"a rule has one subject of {sorted(_SUBJECTS)}, a do and perhaps a name: {rule}")
    subject, matcher, deeds = subjects[0], rule[subjects[0]], rule.get("do")
    if not isinstance(matcher, dict) or set(matcher) - _SUBJECTS[subject] - {"skip", "times"}:
        raise BadRule(f"{subject} may hold {sorted(_SUBJECTS[subject])}, skip and times: {matcher}")
    if not isinstance(deeds, dict) or not deeds or set(deeds) - _DEEDS[subject]:
        raise BadRule(f"do of a {subject} may hold {sorted(_DEEDS[subject])}: {deeds}")
    respond = deeds.get("respond")
    if isinstance(respond, str) and respond not in RESPONSES:
        raise BadRule(f"respond: {respond!r} is none of {sorted(RESPONSES)}")
    if isinstance(respond, dict) and "status" not in respond:
        raise BadRule(f"respond needs a status: {respond}")
    if "damage" in deeds and deeds["damage"].get("how") not in DAMAGES:
        raise BadRule(f"damage: how is one of {DAMAGES}")
    if subject == "job":
        _check_job_deeds(deeds)


class Faults:
    """The rules in *store*, and which of them acts now."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, rules: Any) -> None:
        """Lay down *rules* after those already there. Raises BadRule before any of them counts."""
        if not isinstance(rules, list):
            raise BadRule("rules is a list")
        for rule in rules:
            check(rule)
        with self._store.transaction():
            for rule in rules:
                self._store.add_rule(rule)

    def reset(self) -> None:
        """Lift all rules. What they did to jobs and datasets that exist stays."""
        self._store.drop_rules()

    def listing(self) -> list[dict[str, Any]]:
        """Every rule with how often it matched (`seen`) and acted (`fired`)."""
        return [{**rule, "seen": seen, "fired": fired} for _, rule, seen, fired in self._store.rules()]

    def for_call(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        """Name and deeds of the rule that acts on this call; two empty values when none does."""
        found: tuple[str, dict[str, Any]] = ("", {})
        with self._store.transaction():
            for seq, rule, seen, fired in self._store.rules():
                matcher = rule.get("call")
                if matcher is None or matcher.get("method", method) != method:
                    continue
                if not re.search(matcher.get("path", ""), path):
                    continue
                due = not found[1] and _due(matcher, seen, fired)
                self._store.count_rule(seq, due)
                if due:
                    found = rule.get("name") or f"rule {seq}", rule["do"]
        return found

    def for_resource(self, kind: str, resource_id: str) -> dict[str, Any]:
        """The switches that a new *kind* (`job` or `dataset`) of that id is born with."""
        switches: dict[str, Any] = {}
        with self._store.transaction():
            for seq, rule, seen, fired in self._store.rules():
                matcher = rule.get(kind)
                if matcher is None or not re.search(matcher.get("id", ""), resource_id):
                    continue
                due = _due(matcher, seen, fired)
                self._store.count_rule(seq, due)
                if due:
                    rows = [*switches.get("rows", []), *rule["do"].get("rows", [])]
                    switches |= rule["do"]
                    if rows:
                        switches["rows"] = rows
        return switches


def edited(document: Any, edit: Mapping[str, Any]) -> Any:
    """*document* with the values at dotted paths set or dropped. Paths that lead nowhere are made."""
    for path, value in edit.get("set", {}).items():
        holder, last = _walk(document, path)
        holder[last] = value
    for path in edit.get("drop", []):
        holder, last = _walk(document, path)
        holder.pop(last, None)
    return document


def _walk(document: Any, path: str) -> tuple[dict[str, Any], str]:
    *steps, last = path.split(".")
    for step in steps:
        if not isinstance(document.get(step), dict):
            document[step] = {}
        document = document[step]
    return document, last


def _due(matcher: Mapping[str, Any], seen: int, fired: int) -> bool:
    times = matcher.get("times", 1)
    return seen >= matcher.get("skip", 0) and (times is None or fired < times)


def _check_job_deeds(deeds: Mapping[str, Any]) -> None:
    if "end" in deeds and deeds["end"].get("state") not in _ENDS:
        raise BadRule(f"end: state is one of {_ENDS}")
    if "stuck" in deeds and deeds["stuck"].get("in") not in STAGES:
        raise BadRule(f"stuck: in is one of {STAGES}")
    for fault in deeds.get("rows", []):
        if problem := row_faults.problem(fault):
            raise BadRule(problem)
