"""Reading CSV: every table of this package goes through here, as strictly as `csv` can and with cells of any length.

The length is a setting of the whole process that `csv` has at 131,072 characters, less than a long passage or answer.
Readers that left it to another one to raise it called an intact table damaged wherever that one had not run.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _csv import Reader


def rows(text: Iterable[str]) -> Reader:
    """The rows of *text*, an open file or its lines, as lists of cells. Reading raises csv.Error for what is no CSV."""
    csv.field_size_limit(sys.maxsize)
    return csv.reader(text, strict=True)


def records(text: Iterable[str]) -> csv.DictReader[str]:
    """The same by the names in the first row."""
    csv.field_size_limit(sys.maxsize)
    return csv.DictReader(text, strict=True)
