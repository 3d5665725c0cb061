"""YAML as this project reads and writes it: plain values only, and every text as it was.

Parsing takes longest of all that opening a run does, so a process parses the same text once.
"""

from __future__ import annotations

import copy
import io
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.plain import INVISIBLE

if TYPE_CHECKING:
    from ruamel.yaml.error import YAMLError

# What YAML reads as something else when it stands there bare (controls, line ends of Unicode, BOM, non-characters),
# and what a terminal is shown as an escape: between double quotes both are escapes that YAML reads back.
_UNPRINTABLE = re.compile(f"{INVISIBLE.pattern}|[\ufffe\uffff]")
# What the library adds to a repeated key. Lists and mappings, which it has not read yet, are "[]" and "{}" there.
_VALUES = re.compile(r' with value ".*" \(original value: ".*"\)\Z', re.DOTALL)

_MOST_VALUES = 1_000_000  # a config has hundreds


def load(text: str, *, where: str, hint: str | None = None) -> Any:
    """What *text* holds. Raises ConfigError with the place, *where* and *hint*."""
    from ruamel.yaml.error import YAMLError

    try:
        if _alias_size(text) > _MOST_VALUES:
            much = f"its aliases (*name) stand for more than {_MOST_VALUES:,} values."
            raise ConfigError(much, where=where, hint=hint)
        return copy.deepcopy(_parsed(text))
    except YAMLError as error:
        raise ConfigError(f"is not valid YAML: {_problem(error)}", where=where, hint=hint) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply.", where=where, hint=hint) from error
    except (ArithmeticError, LookupError, ValueError) as error:  # for a 30 February, `0x_` or `!!bool x`
        why = str(error).partition(";")[0]
        raise ConfigError(f"holds a value that is not what it looks like ({why}).", where=where, hint=hint) from error


@lru_cache(maxsize=32)
def _alias_size(text: str) -> int:
    """How many values *text* stands for, each alias for all of its own; 0 without one.

    A few lines can say more than fits anywhere, and merge keys (`<<: *name`) are written out while they are read: so
    this asks before.
    """
    return _size(_yaml().compose(text), {}) if "&" in text and "*" in text else 0


def _size(node: Any, known: dict[int, int]) -> int:
    """The values at *node*. *known* remembers by identity: nothing is counted twice, what holds itself is too many."""
    if not isinstance(getattr(node, "value", None), list):
        return 1
    if id(node) not in known:
        known[id(node)] = _MOST_VALUES
        children = (child[1] if isinstance(child, tuple) else child for child in node.value)
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def dump(value: Any) -> str:
    """*value* as block style YAML; `load` gives the same value back."""
    return _dumped(value, _yaml())


def in_ascii(text: str) -> str:
    """The YAML *text* with everything that is not ASCII as an escape: for a terminal that could not show it."""
    yaml = _yaml()
    yaml.allow_unicode = False
    return _dumped(_parsed(text), yaml)


def _dumped(value: Any, yaml: Any) -> str:
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


@lru_cache(maxsize=32)
def _parsed(text: str) -> Any:
    return _yaml().load(text)


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 1 << 30  # never folded: a folded string is one more way to read back something else
    yaml.sort_base_mapping_type_on_output = False
    yaml.representer.add_representer(str, _represent_text)
    return yaml


def _represent_text(representer: Any, text: str) -> Any:
    style: str | None = None
    if _UNPRINTABLE.search(text):
        style = '"'
    elif "\n" in text and not re.search(r"^\s|[ \t](\n|\Z)", text):
        style = "|"  # a prompt of several lines stays readable in the frozen file
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _problem(error: YAMLError) -> str:
    """What is wrong, and at which line; without the library's advice on how to suppress the check."""
    from ruamel.yaml.error import MarkedYAMLError

    if not (isinstance(error, MarkedYAMLError) and error.problem and error.problem_mark):
        return " ".join(str(error).split())
    begun = f"{error.context}, " if error.context and error.problem.startswith("but ") else ""
    mark = error.problem_mark
    problem = _VALUES.sub("", error.problem)
    return f"{begun}{problem} at line {mark.line + 1}, column {mark.column + 1}"
