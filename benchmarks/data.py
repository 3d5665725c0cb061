"""Realistic result files of any size: a trial's index and combined results, the same for the same size.

Answers have 1 to 2 KB with quotes, newlines and markdown, as chat models write them: half of them in plain ASCII, most
others with curly quotes, dashes and accents, one in ten with signs from anywhere.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

from pipeline import custom_id, disk, jsonl, parts
from pipeline.custom_id import RequestId
from pipeline.parts import Index, Part
from pipeline.paths import TrialPaths

PART_ROWS = 10_000
# What answers are made of: plain ASCII, with typographic marks and accents, with signs from anywhere.
_PLAIN = re.split(
    " ",
    'the answer is given in passage and was 1,234 years old when "quoted" he said "no" to a probability of river '
    "it's well-known that O'Neill (born 1950) didn't; however, 50% of them did - maybe \\alpha = 3.5 m, see "
    "https://example.org/a?b=c&d=e #hash *bold* `code` <tag> & more of the same by which they mean",
)
_TYPOGRAPHIC = ["“quoted”", "naïve", "café", "Zürich", "Straße", "O’Neill", "—", "don’t", "3.5\u00a0m", "…", "Łódź"]
_ANYWHERE = ["北京", "🙂", "≤", "→", "Ω"]
_VOCABULARIES = ((_PLAIN, 5), (_PLAIN * 2 + _TYPOGRAPHIC, 4), (_PLAIN * 2 + _TYPOGRAPHIC + _ANYWHERE, 1))


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


def prose(generator: random.Random, length: int) -> str:
    """*length* characters as a chat model might write them."""
    [vocabulary] = generator.choices([words for words, _ in _VOCABULARIES], [often for _, often in _VOCABULARIES])
    words = generator.choices(vocabulary, k=length // 4)
    for place in range(12, len(words), 25):
        words[place] += "\n\n- " if place % 2 else ".\n"
    return " ".join(words)[:length]


def _row(name: str, row: int, generator: random.Random) -> dict[str, object]:
    text = prose(generator, generator.randint(1000, 2000))
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
