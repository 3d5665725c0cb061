"""One trial of a few questions on disk, made by the phases themselves; its answers are written by hand."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline import config, jsonl
from pipeline.identity import of_phase
from pipeline.parts import Index
from pipeline.paths import RunPaths
from pipeline.phases import Outcome
from pipeline.phases.build import build
from pipeline.phases.parse import parse
from pipeline.phases.prepare import prepare

OPEN = {"id": "o1", "question": "Where is Oslo?", "answers": ["Norway"], "context": "Oslo is in Norway."}
NEVER = {"id": "o2", "question": "Where is Ost?", "context": "Oslo is in Norway.", "is_unanswerable": True}
CLOSED = {"id": "c|1", "question": "Capital of Norway?", "answers": ["Oslo"]}
ITEMS = (OPEN, NEVER, CLOSED)


def settings(**changes: Any) -> dict[str, Any]:
    """The smallest experiment there is, with *changes*."""
    return {
        "models": [{"id": "lab/small"}],
        "prompt_sets": {"default": {"control": {"text": "Answer."}, "treatment": {"text": "Answer or abstain."}}},
        "sources": [{"dataset": "quiz", "format": "jsonl", "path": "quiz.jsonl"}],
        **changes,
    }


def completion(text: Any = "Oslo", *, finish: str = "stop", tokens: Any = (10, 2, 12), **more: Any) -> dict[str, Any]:
    """A chat completion as the service writes it; *tokens*: prompt, completion, total and perhaps cached."""
    response: dict[str, Any] = {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
    }
    if tokens is not None:
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        response["usage"] = dict(zip(names, tokens[:3], strict=True))
        if len(tokens) > 3:
            response["usage"]["prompt_tokens_details"] = {"cached_tokens": tokens[3]}
    return {**response, **more}


class SmallTrial:
    """A run of one trial below *folder*; *changes* go into its config."""

    def __init__(self, folder: Path, items: Any = ITEMS, **changes: Any) -> None:
        self.folder = folder
        self.questions = folder / "quiz.jsonl"
        self.ask(*items)
        self.config = config.check(settings(**changes), base=folder, where="experiment.yaml")
        self.trial = self.config.trials[0]
        self.run = RunPaths.of("r1", folder / "experiments")
        self.paths = self.run.trial(self.trial.slug)

    def ask(self, *items: Mapping[str, Any]) -> None:
        """Write the question file anew."""
        self.questions.write_text("".join(json.dumps(item) + "\n" for item in items))

    def prepare(self) -> Outcome:
        return prepare(self.run, self.config, {})

    def build(self, submitted: Mapping[str, str] | None = None) -> Index:
        """Build, and the index as it stands then."""
        build(
            self.run,
            self.paths,
            self.config,
            self.trial,
            settings=of_phase("build", self.config, self.trial),
            inputs={},
            submitted=submitted or {},
        )
        return self.index

    @property
    def index(self) -> Index:
        from pipeline import parts

        return parts.read(self.paths.index)

    def ready(self) -> "SmallTrial":
        """Prepared and built."""
        self.prepare()
        self.build()
        return self

    @property
    def ids(self) -> list[str]:
        """Every custom_id that was asked for, in order."""
        return [row["custom_id"] for part in self.index.parts for row in self.requests(part.part)]

    def requests(self, part: str) -> list[dict[str, Any]]:
        return [jsonl.loads(line.data) for line in jsonl.lines(self.paths.part_requests(part))]

    def row(self, name: str, answer: Any = None) -> bytes:
        """A line of the combined results: *answer* is a completion, an error (a mapping with `message`), or text."""
        if isinstance(answer, str) or answer is None:
            answer = completion(answer if answer is not None else "Oslo")
        return jsonl.dumps({"custom_id": name, "error" if "message" in answer else "response": answer}) + b"\n"

    def combine(self, answer: Callable[[str], Any] = lambda _name: None) -> list[bytes]:
        """Write the combined results; *answer* gives what was answered to each id."""
        lines = [self.row(name, answer(name)) for name in self.ids]
        self.write_combined(lines)
        return lines

    def write_combined(self, lines: list[bytes]) -> None:
        self.paths.results.mkdir(parents=True, exist_ok=True)
        self.paths.combined.write_bytes(b"".join(lines))

    def parse(self) -> Outcome:
        return parse(self.paths, self.index)


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, read with the csv module."""
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
