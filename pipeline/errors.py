"""The family of errors a user can meet, one class per remedy.

    TrialmakeError              what is wrong, where, what was kept, what to do next
    ├── UsageError              type the command differently            exit 3
    │   └── UnknownRun          name a run that exists                  exit 3
    ├── ConfigError             fix experiment.yaml or the environment  exit 2
    ├── SourceError             fix a question file                     exit 2
    ├── DamagedArtifact         resume: the tool repairs it             exit 1
    │   └── ContractBroken      rows, ids and counts do not agree       exit 1
    ├── UnreadableFile          permissions or the disk: a person looks exit 2
    ├── DiskTrouble             a write failed: free space, then resume exit 2
    ├── Refused                 going on would lose or pay twice        exit 2
    │   ├── FutureVersion       written by a newer tool                 exit 2
    │   └── RunLocked           another process works on this run       exit 2
    ├── ProviderError           the service said no                     exit 1
    │   ├── AuthError           the key is missing or refused           exit 2
    │   ├── QuotaFull           wait until a job ends                   exit 75
    │   └── Unreachable         network or server trouble: try later    exit 75
    ├── NotReady                results are not there yet: resume later exit 75
    ├── BudgetExceeded          raise the budget or ask for less        exit 76
    └── Stopped                 the user asked to stop                  exit 130 / 143

"Cannot read" is never turned into "is not there", and neither into "is damaged": the three have
different remedies.
"""

from __future__ import annotations

from enum import StrEnum

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_ERROR = 2
EXIT_USAGE = 3
EXIT_NOT_READY = 75  # EX_TEMPFAIL of sysexits.h
EXIT_BUDGET = 76
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class PhaseEnd(StrEnum):
    """How a phase ends that an error ended."""

    FAILED = "failed"
    REFUSED = "refused"
    STOPPED = "stopped"
    NOT_READY = "not ready"


class TrialmakeError(Exception):
    """What is wrong, and where it helps: the place, what was kept, and what to do next."""

    exit_code = EXIT_ERROR
    ending = PhaseEnd.FAILED

    def __init__(
        self, what: str, *, where: str | None = None, kept: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.kept = kept
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.kept:
            lines.append(self.kept)
        if self.hint:
            lines.append(f"Next: {self.hint}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The same for a program: what a command prints with `--json` instead of its document."""
        return {
            "error": type(self).__name__,
            "what": self.what,
            "where": self.where,
            "kept": self.kept,
            "next": self.hint,
            "exit_code": self.exit_code,
        }

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders under `doit -n`; keyword-only arguments need help to travel.
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(kind: type[TrialmakeError], state: dict[str, object]) -> TrialmakeError:
    error = kind.__new__(kind)
    error.__dict__.update(state)
    error.args = (state.get("what"),)
    return error


class UsageError(TrialmakeError):
    """The command line asks for something that does not exist."""

    exit_code = EXIT_USAGE


class UnknownRun(UsageError):
    """No run of that id; the hint lists those there are."""


class ConfigError(TrialmakeError):
    """A setting is missing, misspelt or out of range."""


class SourceError(TrialmakeError):
    """A question file cannot be used; the place names file and line."""


class DamagedArtifact(TrialmakeError):
    """A file of the run is not what the tool wrote."""

    exit_code = EXIT_FAILED


class ContractBroken(DamagedArtifact):
    """Rows, ids or counts that must agree do not; nothing wrong was left in place."""


class UnreadableFile(TrialmakeError):
    """A file is there and cannot be read (permission, disk): that says nothing about its content."""


class DiskTrouble(TrialmakeError):
    """A write did not succeed; the file under its final name is the old one."""


class Refused(TrialmakeError):
    """Going on could lose results or pay twice, so a person decides."""

    ending = PhaseEnd.REFUSED


class FutureVersion(Refused):
    """A newer version of the tool wrote this file; nothing was touched."""


class RunLocked(Refused):
    """Another process is the run's one writer."""


class ProviderError(TrialmakeError):
    """The service refused a request; the text says what it answered and whether money may be spent."""

    exit_code = EXIT_FAILED


class AuthError(ProviderError):
    """No key, or a key the service does not accept."""

    exit_code = EXIT_ERROR


class QuotaFull(ProviderError):
    """The account's limit of running jobs is reached; nothing is lost by waiting."""

    exit_code = EXIT_NOT_READY
    ending = PhaseEnd.NOT_READY


class Unreachable(ProviderError):
    """No usable answer after bounded retries; what the service did is unknown and will be asked.

    *wait* is how many seconds the service asked not to be called, None where it did not say. *refused* where
    somebody answered, and did not accept what the service had just given us: asking for hours changes little.
    """

    exit_code = EXIT_NOT_READY
    ending = PhaseEnd.NOT_READY
    wait: float | None = None
    refused: bool = False


class NotReady(TrialmakeError):
    """The provider still works; `doit resume` collects the rest later."""

    exit_code = EXIT_NOT_READY
    ending = PhaseEnd.NOT_READY


class BudgetExceeded(TrialmakeError):
    """The next submission would pass `budget.max_usd`; nothing was sent."""

    exit_code = EXIT_BUDGET


class Stopped(TrialmakeError):
    """The user stopped the run; what was done is kept."""

    exit_code = EXIT_SIGINT
    ending = PhaseEnd.STOPPED
