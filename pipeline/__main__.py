"""`python -m pipeline COMMAND`: what is not a build. Broad handlers live here only."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from pipeline import console
from pipeline.errors import EXIT_ERROR, TrialmakeError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of its error, or 0."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Look at runs; run the emulator.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("emulate", add_help=False, help="run the emulator by hand")
    chosen, rest = parser.parse_known_args(arguments)
    try:
        if chosen.command == "emulate":
            from pipeline.emulator.server import main as emulate

            return int(emulate(rest))
    except TrialmakeError as error:
        console.warn(f"ERROR: {error}")
        return error.exit_code
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
