"""JSON documents that notice silent edits: `run.json` and `trial_manifest.json`.

The key `checksum` holds `sha256:` and the digest of the canonical JSON of all other keys. A third
of single-bit flips would otherwise parse, have the right keys, and say something else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline import jsonl

CHECKSUM = "checksum"
_KIND = "sha256:"


def checksum(document: Mapping[str, Any]) -> str:
    """The checksum that belongs to *document*, whatever stands in it now."""
    rest = {key: value for key, value in document.items() if key != CHECKSUM}
    return _KIND + hashlib.sha256(jsonl.dumps(rest)).hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """*document* with its checksum."""
    return {**document, CHECKSUM: checksum(document)}


def is_like_sealed(document: Mapping[str, Any]) -> bool:
    """Whether a checksum stands in it under any name: a flipped bit in a key must not make it look unsealed."""
    return any(isinstance(value, str) and value.startswith(_KIND) for value in document.values())


def is_intact(document: Mapping[str, Any]) -> bool:
    """Whether the checksum is there and right."""
    return document.get(CHECKSUM) == checksum(document)
