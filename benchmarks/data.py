"""Realistic result files of any size: a trial's index and combined results, the same for the same size.

Answers have 1 to 2 KB with quotes, newlines, tabs and non-ASCII text, as chat models write them.
"""

from __future__ import annotations

import random
from pathlib import Path

from pipeline import custom_id, disk, jsonl, parts
from pipeline.custom_id import RequestId
from pipeline.parts import Index, Part
from pipeline.paths import TrialPaths

PART_ROWS = 10_000
_TEXT = (
    'the answer is given in passage and was 1,234 years old when “quoted” he said "no" to naïve café Zürich '
    "probability of river 北京 Straße it's well-known that O’Neill (born 1950) didn't; however, 50% of them — maybe "
    "\\alpha = 3.5\u00a0m, see https://example.org/a?b=c&d=e #hash *bold* `code` <tag> & more emoji 🙂"
)
_WORDS = _TEXT.split(" ")


def trial(folder: Path, rows: int) -> tuple[TrialPaths, Index]:
    """Write *rows* results below *folder*; the trial's paths and its index."""
    paths = TrialPaths(folder / "run_bench" / "trial")
    disk.make_folder(paths.results)
    listed = []
    generator = random.Random(rows)
    with disk.replacing(paths.combined) as combined:
        for number, start in enumerate(range(0, rows, PART_ROWS), 1):
            ids = parts.IdsDigest()
            condition = "control" if number % 2 else "treatment"
            count = min(PART_ROWS, rows - start)
            for row in range(start, start + count):
                name = custom_id.join(RequestId("bench", f"item-{row:07d}", condition, "0.7", row % 5, "open"))
                ids.add(name)
                combined.write(jsonl.dumps(_row(name, row, generator)) + b"\n")
            listed.append(Part(f"t07_{condition}_p{number:03d}", 0.7, condition, count, 1, "0" * 64, ids.hexdigest()))
    index = Index(tuple(listed), {}, 1, {})
    parts.write(paths.index, index)
    return paths, index


def _row(name: str, row: int, generator: random.Random) -> dict[str, object]:
    length = generator.randint(1000, 2000)
    words = generator.choices(_WORDS, k=length // 6)
    for place in range(12, len(words), 25):
        words[place] += "\n\n- " if place % 2 else ".\n"
    text = " ".join(words)[:length]
    tokens = len(text) // 4
    return {
        "custom_id": name,
        "response": {
            "id": f"chatcmpl-{row:012x}",
            "object": "chat.completion",
            "created": 1_788_062_136,
            "model": "accounts/fireworks/models/bench",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"},
            ],
            "usage": {
                "prompt_tokens": 200,
                "completion_tokens": tokens,
                "total_tokens": 200 + tokens,
                "prompt_tokens_details": {"cached_tokens": 64},
            },
        },
    }
