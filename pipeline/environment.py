"""What the process environment and `./.env` say: settings of a new run, keys, accounts. Nothing else reads them.

Keys leave this module as `Secret`s.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline import disk
from pipeline.errors import ConfigError
from pipeline.secret import Secret

PREFIX = "TRIALMAKE_"
# Read by the test suite and by the shell, not settings of an experiment.
_NOT_SETTINGS = frozenset({"TRIALMAKE_SHARED_DATA"})


def variables() -> dict[str, str]:
    """The process environment over the variables of `./.env`, read once per call."""
    from dotenv import dotenv_values

    path = Path(".env")
    try:
        with disk.readable(path):
            from_file = {key: value for key, value in dotenv_values(path).items() if value is not None}
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text ({error.reason} at byte {error.start}).", where=str(path)) from error
    return {**from_file, **os.environ}


def overriding(variables: Mapping[str, str]) -> list[str]:
    """The names of *variables* that set something in a new run."""
    return sorted(name for name in variables if name.startswith(PREFIX) and name not in _NOT_SETTINGS)


def set_here() -> dict[str, str]:
    """The settings among the process environment's variables alone: cheap enough to look at in every run."""
    return {name: os.environ[name] for name in overriding(os.environ)}


def fireworks_key(variables: Mapping[str, str]) -> Secret | None:
    """The Fireworks API key of *variables*, if there is one."""
    key = variables.get("FIREWORKS_API_KEY", "").strip()
    return Secret(key) if key else None


def without_keys(text: str) -> str:
    """*text* with the process environment's key masked: for what a command has said that inherits it."""
    key = fireworks_key(os.environ)
    return key.mask(text.encode()).decode() if key else text


def fireworks_account(configured: str | None, variables: Mapping[str, str]) -> str | None:
    """The account to use: the one in the config, else the environment's, else None (the service is asked)."""
    return configured or variables.get("FIREWORKS_ACCOUNT_ID", "").strip() or None
