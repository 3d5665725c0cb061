"""A disk that is really full: in bytes and in inodes, at many sizes around what a small run needs.

The seam plays a full disk at each operation; here the kernel decides where it ends. FAULT_STEPS sets at how many
sizes (default 8). If this failed, a run on a full disk would end in a traceback, or pay twice once there is room.

    pytest -m heavy tests/faults/test_disk_full.py     (as root: it mounts a tmpfs)
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from process_kit import Case, case, golden

from pipeline import disk
from pipeline.errors import DiskTrouble

WORDS = ("to=costs",)
PARTS = 2
AMPLE = {"size": 64 << 20, "nr_inodes": 100_000}
PAGE = 4096
FULL = Path("/dev/full")
# The second and third are SQLite's words, of doit's memory; the third when its journal gets no inode.
_SAID = re.compile(r"No space left on device|database or disk is full|unable to open database file")


# --- what the kernel says to `disk` -----------------------------------------------------------------


@pytest.mark.skipif(not FULL.is_char_device(), reason="there is no /dev/full")
def test_a_device_that_is_full_is_one_clear_error_and_the_old_file(tmp_path, monkeypatch):
    """The bytes wait in a buffer until the fsync: the kernel's refusal must not get lost there."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def created(temporary):
        temporary.symlink_to(FULL)
        return open(temporary, "wb")

    monkeypatch.setattr(disk, "_created", created)
    with pytest.raises(DiskTrouble, match=r"file: could not be written \(No space left on device\)") as trouble:
        disk.write_bytes(path, b"new")
    assert "Next: free space" in str(trouble.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not FULL.is_char_device(), reason="there is no /dev/full")
def test_a_log_on_a_full_device_is_one_clear_error(tmp_path):
    (tmp_path / "log").symlink_to(FULL)
    with pytest.raises(DiskTrouble, match=r"No space left on device[\s\S]*The lines before it are untouched"):
        disk.append_lines(tmp_path / "log", [b"line"])


# --- a whole run on a small disk --------------------------------------------------------------------


def mount(folder: Path, options: dict[str, int], *, again: bool = False) -> bool:
    words = ",".join([*(["remount"] if again else []), *(f"{name}={value}" for name, value in options.items())])
    command = ["mount", "-t", "tmpfs", "-o", words, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def _mountable(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mountable")
    if shutil.which("mount") is None or not mount(folder, AMPLE):
        pytest.skip("mounting is not permitted here")
    subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def small_disk(**limit: int) -> Iterator[Case]:
    """A built run whose folder is a disk of its own with these limits."""
    with case() as run:
        runs = run.folder / "experiments"
        kept = shutil.move(runs, run.folder / "kept")
        runs.mkdir()
        assert mount(runs, {**AMPLE, **limit})
        try:
            shutil.copytree(kept, runs, symlinks=True, dirs_exist_ok=True)
            yield run
        finally:
            subprocess.run(["umount", "-l", str(runs)], check=True)


def used(run: Case) -> dict[str, int]:
    status = os.statvfs(run.folder / "experiments")
    return {
        "size": (status.f_blocks - status.f_bfree) * status.f_frsize,
        "nr_inodes": status.f_files - status.f_ffree,
    }


@pytest.fixture(scope="module")
def needs(_mountable):
    """What a built run takes of each, and what it has taken when it is done."""
    golden(WORDS)  # made now: two emulators cannot have the one port
    with small_disk() as run:
        before = used(run)
        run.resume(*WORDS)
        return before, used(run)


def ends_well(limit: dict[str, int]) -> bool:
    """Whether the run fits; where it does not, it says so and one resume with room finishes it."""
    with small_disk(**limit) as run:
        code = run.start("resume", "rid=f", *WORDS).wait(timeout=300)
        said = run.said()
        if code:
            assert code == 2, (code, said)
            assert _SAID.search(said), said
            assert re.search(r"\S*run_f/\S+", said), f"no file is named:\n{said}"
            assert "Next: free space" in said
            assert "Traceback" not in said
            assert len(run.jobs()) <= PARTS
            assert mount(run.folder / "experiments", AMPLE, again=True)
            run.resume(*WORDS)
        run.check_jobs(PARTS)
        assert run.artifacts() == golden(WORDS)
        return code == 0


@pytest.mark.heavy
@pytest.mark.parametrize(("what", "unit"), [("size", PAGE), ("nr_inodes", 1)])
def test_a_run_on_a_disk_that_is_too_small(needs, what, unit, capsys):
    before, after = (need[what] for need in needs)
    steps = int(os.environ.get("FAULT_STEPS", "8"))
    # From a disk that is full already to one that holds the files and the temporary ones beside them.
    sizes = {before + unit * ((after - before) * step // (unit * steps)) for step in range(steps + 2)}
    fits = [limit for limit in sorted(sizes) if ends_well({what: limit})]
    with capsys.disabled():
        print(f"\n{what}: {len(sizes)} disks from {before:,} to {max(sizes):,}, {len(sizes) - len(fits)} too small")
    assert len(fits) < len(sizes) / 2, "the disks were hardly ever full"
    assert fits == sorted(sizes)[len(sizes) - len(fits) :], "a larger disk was too small and a smaller one was not"
