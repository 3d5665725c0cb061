"""`batch_inputs/index.json`: the parts that build wrote, and the only list of what must be answered.

    {"schema_version": 1, "settings": {...}, "identity_version": 1,
     "inputs": {"prepared/open_book.jsonl": "<sha256>", ...},
     "parts": [{"part": "t0_control_p01", "temp": 0.0, "condition": "control", "rows": 40, "size": 51234,
                "sha256": "<of the part's bytes>", "ids_sha256": "<of its custom_ids, in order>"}],
     "checksum": "sha256:..."}

The digest of ordered ids lets a results file be checked in one pass without holding any ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import disk, fingerprints, jsonl, schema, sealed
from pipeline.disk import Written
from pipeline.errors import DamagedArtifact, FutureVersion
from pipeline.fingerprints import Fingerprints

SCHEMA = "index.schema"
VERSION = 1


@dataclass(frozen=True)
class Part:
    """A shard of the requests of one temperature and condition. *size* is in bytes."""

    part: str
    temp: float
    condition: str
    rows: int
    size: int
    sha256: str
    ids_sha256: str

    @property
    def group(self) -> str:
        """The part's name without its number, `t0_control`: how the manifest groups jobs."""
        return self.part.rpartition("_p")[0]


@dataclass(frozen=True)
class Index:
    """What build wrote, and from which inputs and settings."""

    parts: tuple[Part, ...]
    settings: Mapping[str, Any]
    identity_version: int
    inputs: Mapping[str, str]

    @property
    def rows(self) -> int:
        """Requests in all parts."""
        return sum(part.rows for part in self.parts)


class IdsDigest:
    """The digest of ordered ids, fed one id at a time."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, custom_id: str) -> None:
        """Take the next id."""
        self._hash.update(custom_id.encode())
        self._hash.update(b"\n")
        self.count += 1

    def extend(self, custom_ids: Sequence[str]) -> None:
        """Take the next ids, at a fraction of the cost of one call for each."""
        self._hash.update("\n".join([*custom_ids, ""]).encode())
        self.count += len(custom_ids)

    def hexdigest(self) -> str:
        """The digest of all ids so far."""
        return self._hash.hexdigest()


def write(path: Path, index: Index) -> Written:
    """Put *index* in place."""
    document = sealed.sealed(
        {
            "schema_version": VERSION,
            "settings": dict(index.settings),
            "identity_version": index.identity_version,
            "inputs": dict(index.inputs),
            "parts": [asdict(part) for part in index.parts],
        }
    )
    schema.require_none(schema.problems(document, SCHEMA), "index")
    disk.make_folder(path.parent)
    return disk.write_bytes(path, jsonl.dumps_pretty(document))


def read(path: Path, memory: Fingerprints | None = None) -> Index:
    """The index at *path*. Bytes that *memory* vouches for were checked before, and are not checked again.

    Raises FileNotFoundError, UnreadableFile, FutureVersion, or DamagedArtifact saying why.
    """
    data = disk.read_bytes(path)
    proof = hashlib.sha256(b"%d" % VERSION + data).hexdigest()
    if memory is not None and memory.vouches(path, proof):
        return _index(jsonl.loads(data))
    document = jsonl.document(data, path)
    if not isinstance(document, dict) or not sealed.is_intact(document):
        raise DamagedArtifact("its checksum does not fit its content (edited, or a damaged disk).", where=str(path))
    try:
        if document["parts"] and document["schema_version"] > VERSION:
            raise FutureVersion(
                f"is a version {document['schema_version']} list of parts; this tool knows {VERSION}.",
                where=str(path),
                kept="Nothing was read further and nothing was written.",
                hint="update trialmake, or use the version that wrote this run",
            )
        index = _index(document)
    except (KeyError, TypeError) as error:
        raise DamagedArtifact("is another sealed document, not a list of parts.", where=str(path)) from error
    if data != jsonl.dumps_pretty(document):
        # The same content laid out anew; later phases know the file by its bytes.
        raise DamagedArtifact("is not as it was written (edited).", where=str(path))
    if memory is not None:
        memory.vouch(path, proof)
    return index


def usable(path: Path) -> Index | None:
    """The index at *path*, None when there is none that can be used. Raises UnreadableFile or FutureVersion."""
    try:
        return read(path) if fingerprints.kind(path) == "file" else None
    except DamagedArtifact:
        return None


def _index(document: Mapping[str, Any]) -> Index:
    return Index(
        parts=tuple(Part(**part) for part in document["parts"]),
        settings=document["settings"],
        identity_version=document["identity_version"],
        inputs=document["inputs"],
    )


def temperature_label(temperature: float) -> str:
    """`t0`, `t07`, `t10`, `t025`: `t` and the decimal without its dot; no two temperatures share one.

    One decimal is written where it is enough (1 -> t10, as the earlier tool did), 0 is `t0`.
    """
    if temperature == 0:
        return "t0"
    text = format(temperature, "g")
    if "e" in text:  # 1.5e-05 is t15e-05: one digit stands before the dot, so it is still unambiguous
        return "t" + text.replace(".", "")
    return "t" + (text if "." in text else f"{text}.0").replace(".", "")


def names(label: str, condition: str, count: int) -> Iterable[str]:
    """Names of *count* parts: numbers from 01, as many digits as the count needs, at least two."""
    digits = max(2, len(str(count)))
    return (f"{label}_{condition}_p{number:0{digits}d}" for number in range(1, count + 1))
