"""What one submission of a part consists of: its ids, its exact request bytes, its estimate.

Ids are functions of content: run, trial, part, attempt number, and a digest of the exact request
bytes and the model. So a crash at any moment loses nothing that cannot be asked for again, and two
different inputs never share an id. The run's name is cut to fit the provider's 63 characters; digest
and suffix never are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline import disk, jsonl
from pipeline.disk import Written
from pipeline.errors import DamagedArtifact
from pipeline.ledger import Attempt
from pipeline.mirror import UNKNOWN
from pipeline.parts import Part
from pipeline.paths import PartPaths, TrialPaths
from pipeline.providers.base import Submission

PREFIX = "tm"  # first letters of every job and dataset of ours; `orphans` looks for them
NOT_FOUND = "NOT_FOUND"  # the recorded state of a job that the provider does not know

_SLUG_LENGTH = 24  # characters of the run's name; 63 less prefix, digests, attempt and suffix
_PLACE_DIGITS = 8
_CONTENT_DIGITS = 12
_ID = re.compile(
    rf"(?P<job>(?P<place>[0-9a-f]{{{_PLACE_DIGITS}}})-a(?P<attempt>[0-9]+)-[0-9a-f]{{{_CONTENT_DIGITS}}})(-in|-out)?"
)
_OUTPUT_ID = re.compile(rf"-a([0-9]+)-[0-9a-f]{{{_CONTENT_DIGITS}}}-out$")


def run_prefix(rid: str) -> str:
    """What the ids of every job and dataset of the run *rid* begin with."""
    slug = re.sub(r"[^a-z0-9]+", "-", rid.lower()).strip("-")[:_SLUG_LENGTH].strip("-")
    return f"{PREFIX}-{slug or 'run'}-"


def place_digest(rid: str, trial: str, part: str) -> str:
    """The piece of an id that says whose it is. The full rid is in it: two long names may share what fits of them."""
    return hashlib.sha256(f"{rid}\n{trial}\n{part}".encode()).hexdigest()[:_PLACE_DIGITS]


def job_id(rid: str, trial: str, part: str, attempt: int, requests_sha256: str, model: str) -> str:
    """The job's id; its datasets are called the same with `-in` and `-out`."""
    content = hashlib.sha256(f"{requests_sha256}\n{model}\n{attempt}".encode()).hexdigest()[:_CONTENT_DIGITS]
    return f"{run_prefix(rid)}{place_digest(rid, trial, part)}-a{attempt}-{content}"


class Name(NamedTuple):
    """What an id of ours says."""

    job_id: str
    place: str
    attempt: int


def parse(remote_id: str, prefix: str) -> Name | None:
    """What the id of a job or dataset says that `job_id` made with *prefix*; None for any other id."""
    found = _ID.fullmatch(remote_id.removeprefix(prefix)) if remote_id.startswith(prefix) else None
    return Name(prefix + found["job"], found["place"], int(found["attempt"])) if found else None


def number_of(output_dataset_id: str) -> int:
    """The number of the attempt that writes *output_dataset_id*; 1 for an id that is not of our making."""
    found = _OUTPUT_ID.search(output_dataset_id)
    return int(found[1]) if found else 1


def stranger(attempt: Attempt, paths: TrialPaths, part: str, model: str) -> str | None:
    """Why *attempt* is not one of *part*'s, asked of *model*, whatever its requests: the bytes name no model.

    Where the earlier tool or the service itself named a job, its name says nothing of the place.
    """
    rid = paths.run.rid
    whose = parse(attempt.input_dataset_id, run_prefix(rid))  # of the intent: the job's id may be the service's own
    if whose is not None and whose.place != place_digest(rid, paths.slug, part):
        folder = paths.relative(paths.part(part).root)
        return f"{attempt.job_id} is of another trial or part: move {folder} out of the run"
    if attempt.model not in (model, UNKNOWN):
        return f"{attempt.job_id} asked {attempt.model}, not {model}: set the model back"
    return None


def sent_otherwise(paths: TrialPaths, part: Part, model: str) -> str | None:
    """The job under which other requests than *part*'s, or another model's, were sent, by the breadcrumb of the part.

    For where no ledger is left: the ids of our making are functions of what was sent.
    """
    rid = paths.run.rid
    expected = job_id(rid, paths.slug, part.part, 1, part.sha256, model)
    names = (parse(crumb, run_prefix(rid)) for crumb in breadcrumbs(paths.part(part.part)))
    return next((name.job_id for name in names if name and name.attempt == 1 and name.job_id != expected), None)


def breadcrumbs(files: PartPaths) -> list[str]:
    """The ids of the output datasets that the part's attempts were to write, oldest first."""
    try:
        return disk.read_bytes(files.output_ids).decode(errors="replace").split()
    except FileNotFoundError:
        return []


def submission(
    rid: str, paths: TrialPaths, part: Part, attempt: int, model: str, requests: Path, requests_sha256: str, rows: int
) -> Submission:
    """The submission of *requests* as attempt number *attempt* of *part*."""
    name = job_id(rid, paths.slug, part.part, attempt, requests_sha256, model)
    return Submission(
        job_id=name,
        input_dataset_id=f"{name}-in",
        output_dataset_id=f"{name}-out",
        requests=requests,
        rows=rows,
        model=model,
        display_name=display_name(rid, paths, part, attempt),
    )


def display_name(rid: str, paths: TrialPaths, part: Part, attempt: int) -> str:
    """What people see in the provider's console; at most 63 characters."""
    return f"{rid} {paths.slug} {part.part} a{attempt}"[:63]


def write_requests(paths: TrialPaths, part: Part, attempt: int, owed: Collection[str]) -> tuple[Path, Written]:
    """Write the requests of *part* whose ids are *owed*, in their order, as the input of *attempt*."""
    target = paths.part(part.part).attempt_requests(attempt)
    disk.make_folder(target.parent)
    with disk.replacing(target) as file:
        for line in request_lines(paths, part, owed):
            file.write(line)
    return target, file.written


def request_lines(paths: TrialPaths, part: Part, owed: Collection[str]) -> Iterator[bytes]:
    """The requests of *part* whose ids are *owed*, in their order."""
    for line in jsonl.lines(paths.part_requests(part.part)):
        if jsonl.loads(line.data)["custom_id"] in owed:
            yield line.data + b"\n"


def requests_of(paths: TrialPaths, part: Part, attempt: int) -> Path:
    """The file attempt number *attempt* sends: the part itself, or the rows it still owed."""
    return paths.part_requests(part.part) if attempt == 1 else paths.part(part.part).attempt_requests(attempt)


def ids_of(path: Path) -> list[str]:
    """The custom_ids of a file of requests, in order. Raises FileNotFoundError or DamagedArtifact."""
    ids = []
    for line in jsonl.lines(path):
        try:
            ids.append(jsonl.loads(line.data)["custom_id"])
        except (jsonl.BadJson, KeyError, TypeError) as error:
            raise DamagedArtifact(f"line {line.number} is no request.", where=str(path)) from error
    return ids
