"""A value that must not be shown: it prints as `***` wherever it is printed by accident.

It is read in exactly one way, `reveal()`, so that one search finds every use. It is never pickled,
since a pickle is a file; copying gives the same object.
"""

from __future__ import annotations

from typing import NoReturn

MASK = "***"
_MIN_MASKED = 8  # characters; masking a shorter value would garble ordinary words in messages


class Secret:
    """An API key or the like; `repr`, `str`, `format` and logging show `***`."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        self.__value = value

    def reveal(self) -> str:
        """The value itself; call this only where it leaves for the service it belongs to."""
        return self.__value

    def mask(self, data: bytes) -> bytes:
        """*data* with every occurrence of the value replaced, for what a service said about a request."""
        return data.replace(self.__value.encode(), MASK.encode()) if len(self.__value) >= _MIN_MASKED else data

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: a pickle is a file, and files of a run hold no key")
