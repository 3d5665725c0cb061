"""The trials of an experiment: which models, prompt sets and ways of decoding meet, and what each is called."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline import schema


@dataclass(frozen=True)
class Trial:
    """One model under one prompt set with one way of decoding; *prompts* maps condition -> text, control first."""

    slug: str
    model: str
    alias: str
    prompt_set: str
    prompts: Mapping[str, str]
    decoding: Mapping[str, Any]
    temperatures: tuple[float, ...]
    samples: int

    @property
    def conditions(self) -> tuple[str, ...]:
        """The control, then the treatments."""
        return tuple(self.prompts)


def expand(values: Mapping[str, Any]) -> Iterator[Trial]:
    """The trials of a config with all defaults. Raises KeyError with a sentence for a name that is not there."""
    models = {key: model for model in values["models"] for key in (model["id"], alias(model))}
    section = "sweep" if values.get("trials") is None else "trials"
    for choice in _choices(values):
        for kind, key, known in (
            ("model", choice["model"], models),
            ("prompt_set", choice["prompt_set"], values["prompt_sets"]),
        ):
            if key not in known:
                raise KeyError(f"{section}: there is no {kind} {key!r}{schema.nearest(key, sorted(known))}")
        model = models[choice["model"]]
        prompts = values["prompt_sets"][choice["prompt_set"]]
        # By name, not as written: run.json keeps no order of keys, and the first treatment is the one compared.
        order = sorted(prompts, key=lambda condition: (condition != values["control"], condition))
        yield Trial(
            slug="-".join([alias(model), choice["prompt_set"], *_tags(choice["decoding"])]),
            model=model["id"],
            alias=alias(model),
            prompt_set=choice["prompt_set"],
            prompts={c: prompts[c]["text"] if isinstance(prompts[c], dict) else prompts[c] for c in order},
            decoding={**values["decoding"], **choice["decoding"]},
            temperatures=tuple(float(t) + 0.0 for t in values["temperatures"]),  # -0.0 is 0.0 in ids too
            samples=values["samples_per_item"],
        )


def _choices(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if values.get("trials") is not None:
        yield from ({"decoding": {}, **trial} for trial in values["trials"])
        return
    sweep = values.get("sweep") or {}
    decoding_keys = [key for key in ("top_p", "top_k", "max_tokens") if key in sweep]
    for model, prompt_set, *chosen in itertools.product(
        sweep.get("models") or [alias(model) for model in values["models"]],
        sweep.get("prompt_sets") or sorted(values["prompt_sets"]),
        *(sweep[key] for key in decoding_keys),
    ):
        yield {"model": model, "prompt_set": prompt_set, "decoding": dict(zip(decoding_keys, chosen, strict=True))}


def alias(model: Mapping[str, Any]) -> str:
    """What a model is called in names of folders."""
    last = model["id"].rsplit("/", 1)[-1]
    return model.get("alias") or re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._") or "model"


def _tags(decoding: Mapping[str, Any]) -> Iterator[str]:
    """The parts of a trial's folder name that tell its own decoding apart (names of the earlier tool)."""
    if decoding.get("top_p") is not None:
        yield "tp" + f"{decoding['top_p']:.2f}".rstrip("0").rstrip(".").replace(".", "")
    if decoding.get("top_k") is not None:
        yield f"tk{decoding['top_k']}"
    if (limit := decoding.get("max_tokens")) is not None:
        closed, opened = (limit["closed"], limit["open"]) if isinstance(limit, dict) else (limit, limit)
        yield f"mx{closed}-{opened}"
