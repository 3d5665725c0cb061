"""Under its final name a file is always whole, whatever the disk does; and what was acknowledged is durable."""

import errno
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from faulty_disk import ERRORS, FILES, FaultyDisk, leftovers, operations

from pipeline import disk, jsonl
from pipeline.disk import StatKey
from pipeline.errors import DiskTrouble, UnreadableFile

OLD, NEW = b"old content\n", b"the new content, longer than the old\n"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "file.json"
    path.parent.mkdir()
    path.write_bytes(OLD)
    return path


@pytest.fixture
def kernel(monkeypatch):
    """The fsyncs, renames and unlinks the kernel really sees, in order; of an fsync also the size on disk then."""
    seen = []
    real = {name: getattr(os, name) for name in ("fsync", "rename", "unlink", "mkdir")}

    def fsync(descriptor):
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        status = os.fstat(descriptor)
        folder = os.path.isdir(f"/proc/self/fd/{descriptor}")
        seen.append(f"fsync {name}/" if folder else f"fsync {name} {status.st_size}")
        real["fsync"](descriptor)

    def rename(source, target, **options):
        seen.append(f"rename {Path(source).name} {Path(target).name}")
        real["rename"](source, target, **options)

    def unlink(path, **options):
        seen.append(f"unlink {Path(path).name}")
        real["unlink"](path, **options)

    def mkdir(path, *rest, **options):
        seen.append(f"mkdir {Path(path).name}")
        real["mkdir"](path, *rest, **options)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to see which file is synced")
    for name, fake in {"fsync": fsync, "rename": rename, "unlink": unlink, "mkdir": mkdir}.items():
        monkeypatch.setattr(os, name, fake)
    return seen


# --- replacing ------------------------------------------------------------------------------------


def test_a_file_is_whole_and_durable_before_it_gets_its_name(path, kernel):
    """Without either fsync a power cut leaves an empty file under the final name; without the last, the old one."""
    disk.write_bytes(path, NEW)
    assert kernel == [f"fsync .file.json.tmp {len(NEW)}", "rename .file.json.tmp file.json", "fsync folder/"]
    assert path.read_bytes() == NEW


def test_what_was_written_is_reported_without_reading_it_again(path):
    with disk.replacing(path) as target:
        target.write(NEW[:5])
        target.write(NEW[5:])
        assert path.read_bytes() == OLD
    for written in (target.written, disk.write_bytes(path, NEW)):
        assert (written.sha256, written.size) == (hashlib.sha256(NEW).hexdigest(), len(NEW))
    assert written.key == StatKey.of(path.stat())
    digest = disk.Digest()
    digest.add(NEW[:5])
    digest.add(NEW[5:])
    assert (digest.sha256, digest.size) == (written.sha256, written.size)


def test_a_target_can_stand_in_for_a_stream(path):
    """gzip and tarfile write through it, and count what it says it took."""
    with disk.replacing(path) as target:
        assert target.stream.writable()
        assert target.stream.write(NEW) == len(NEW)
    assert path.read_bytes() == NEW


WRITERS = {
    "write_bytes": lambda path: disk.write_bytes(path, NEW),
    "replacing": lambda path: _replace_in_pieces(path),
    "move": lambda path: disk.move(_beside(path), path),
    "copy_aside": lambda path: disk.copy_aside(path, "corrupt"),
    "set_aside": lambda path: disk.set_aside(path, "damaged"),
    "append_lines": lambda path: disk.append_lines(path, [b"one", b"two"]),
    "remove": lambda path: disk.remove(path),
    "make_folder": lambda path: disk.make_folder(path.parent / "a" / "b"),
}


def _replace_in_pieces(path):
    with disk.replacing(path) as target:
        for start in range(0, len(NEW), 5):
            target.write(NEW[start : start + 5])


def _beside(path):
    source = path.parent / "source"
    source.write_bytes(NEW)
    return source


REPLACED = [
    "open .file.json.tmp",
    "write .file.json.tmp",
    "fsync .file.json.tmp",
    "rename file.json",
    "fsync_dir folder",
]
SEEN = {
    "write_bytes": REPLACED,
    "replacing": REPLACED[:1] + REPLACED[1:2] * 7 + REPLACED[1:],
    "move": ["rename file.json", "fsync_dir folder"],
    "copy_aside": ["open .COPY.tmp", "write .COPY.tmp", "fsync .COPY.tmp", "rename COPY", "fsync_dir folder"],
    "set_aside": ["rename ASIDE", "fsync_dir folder"],
    "append_lines": ["write file.json", "fsync file.json", "fsync_dir folder"],
    "remove": ["unlink file.json", "fsync_dir folder"],
    "make_folder": ["mkdir a", "fsync_dir folder", "mkdir b", "fsync_dir a"],
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_seam_sees_every_operation_and_no_descriptor_stays_open(path, name):
    """What it does not see, no test of a failing disk can make fail."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    seen = [
        re.sub(r"file\.json\.(corrupt|damaged)\.\w+", r"\1", step) for step in operations(lambda: WRITERS[name](path))
    ]
    assert seen == [step.replace("COPY", "corrupt").replace("ASIDE", "damaged") for step in SEEN[name]]
    assert before is None or len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", WRITERS)
def test_a_failing_disk_leaves_the_old_file_or_the_whole_new_one(tmp_path, name, error):
    """Each operation of each writer fails in turn: one clear error, no torn file, no temporary file."""
    whole = {OLD, NEW, OLD + b"one\ntwo\n"}
    steps = None
    number = 0
    while steps is None or number < steps:
        path = tmp_path / str(number) / "file.json"
        path.parent.mkdir()
        path.write_bytes(OLD)
        with FaultyDisk(fail_at=number, error=error) as faulty, pytest.raises(DiskTrouble) as trouble:
            WRITERS[name](path)
        assert faulty.fired
        said = str(trouble.value)
        assert os.strerror(error) in said
        assert str(path.parent) in said
        assert ("Next: raise the limit of open files" if error == FILES else "Next: free space") in said
        assert ("free space" in said) == (error != FILES)
        assert leftovers(tmp_path) == []
        for found in path.parent.rglob("*"):
            assert found.is_dir() or found.read_bytes() in whole, f"{found.name} is torn"
        removed = name == "remove" and faulty.operations[-1].startswith("fsync_dir")
        assert removed or any(found.is_file() for found in path.parent.iterdir())
        number += 1
        if steps is None:
            (healthy := tmp_path / "healthy").mkdir()
            (healthy / "file.json").write_bytes(OLD)
            steps = len(operations(lambda: WRITERS[name](healthy / "file.json")))
            assert steps >= 2


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_block_leaves_the_old_file(path, interruption):
    def work():
        with disk.replacing(path) as target:
            target.write(NEW)
            raise interruption

    with pytest.raises(interruption):
        work()
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file.json"]


def test_a_failed_fsync_is_not_tried_again(path, monkeypatch):
    """The kernel drops the dirty pages with the first failure: a second fsync would report success for lost bytes."""
    asked = []

    def fsync(descriptor):
        asked.append(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DiskTrouble):
        disk.write_bytes(path, NEW)
    assert len(asked) == 1
    assert path.read_bytes() == OLD


def test_a_leftover_of_a_killed_writer_is_overwritten(path):
    path.with_name(".file.json.tmp").write_bytes(b"half of something else, and much longer than what comes now")
    disk.write_bytes(path, NEW)
    assert os.listdir(path.parent) == ["file.json"]
    assert path.read_bytes() == NEW


def test_a_symlink_is_replaced_and_not_what_it_points_to(path, tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(OLD)
    path.unlink()
    path.symlink_to(outside)
    disk.write_bytes(path, NEW)
    assert not path.is_symlink()
    assert outside.read_bytes() == OLD


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_under_the_temporary_name_is_not_written_through(path, tmp_path, link):
    outside = tmp_path / "outside"
    outside.write_bytes(OLD)
    link(outside, path.with_name(f".{path.name}.tmp"))
    disk.write_bytes(path, NEW)
    assert not path.is_symlink()
    assert (path.read_bytes(), outside.read_bytes()) == (NEW, OLD)


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(DiskTrouble, match="No such file or directory"):
        disk.write_bytes(tmp_path / "nowhere" / "file", NEW)


def test_a_real_limit_of_the_kernel_is_met_like_a_full_disk(path):
    """The seam is a stand-in; here the kernel itself takes the first bytes and refuses the rest."""
    script = (
        "import resource, sys; from pathlib import Path; from pipeline import disk; from pipeline.errors import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: disk.write_bytes(Path(sys.argv[1]), b'x' * 50_000)\n"
        "except DiskTrouble as error: sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "could not be written (File too large)" in done.stderr
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == ["file.json"]


# --- the log --------------------------------------------------------------------------------------


def test_an_appended_line_is_durable_with_its_file(tmp_path, kernel):
    """A ledger's intent must outlive a power cut: its bytes, and the name of a ledger that is new."""
    log = tmp_path / "folder" / "log.jsonl"
    log.parent.mkdir()
    kernel.clear()
    disk.append_lines(log, [b"one"])
    assert kernel == ["fsync log.jsonl 4", "fsync folder/"]
    disk.append_lines(log, [b"two"])
    assert log.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b"new\n"), (b"one\n", b"one\nnew\n"), (b"one\ntor", b"one\ntor\nnew\n"), (b"t", b"t\nnew\n")],
)
def test_a_torn_last_line_cannot_swallow_the_next(tmp_path, before, after):
    log = tmp_path / "log.jsonl"
    log.write_bytes(before)
    disk.append_lines(log, [b"new"])
    assert log.read_bytes() == after


# --- folders, moving, removing --------------------------------------------------------------------


def test_what_is_set_aside_stays_aside(path, kernel):
    aside = disk.set_aside(path, "damaged")
    assert kernel == [f"rename file.json {aside.name}", "fsync folder/"]


def test_every_new_folder_is_entered_durably(tmp_path, kernel):
    disk.make_folder(tmp_path / "a" / "b")
    assert kernel == ["mkdir a", f"fsync {tmp_path.name}/", "mkdir b", "fsync a/"]
    kernel.clear()
    disk.make_folder(tmp_path / "a" / "b")
    assert kernel == []


def test_a_move_is_durable_in_both_folders(tmp_path, kernel):
    source, target = tmp_path / "from" / "x", tmp_path / "to" / "y"
    source.parent.mkdir()
    target.parent.mkdir()
    source.write_bytes(NEW)
    kernel.clear()
    disk.move(source, target)
    assert kernel == ["rename x y", "fsync to/", "fsync from/"]
    assert target.read_bytes() == NEW


def test_what_is_removed_stays_removed(path, kernel):
    disk.remove(path)
    assert kernel == ["unlink file.json", "fsync folder/"]
    disk.remove(path)  # gone already is fine
    disk.remove(path.parent / "no folder" / "file")


def test_a_scratch_folder_goes_with_all_it_holds_and_stays_gone(tmp_path, kernel):
    """Half of one that came back would be taken for what a later step put there."""
    scratch = tmp_path / "scratch"
    (scratch / "deep").mkdir(parents=True)
    (scratch / "deep" / "file").write_bytes(OLD)
    kernel.clear()
    disk.remove_folder(scratch)
    assert kernel == ["unlink file", f"fsync {tmp_path.name}/"]
    disk.remove_folder(scratch)
    assert os.listdir(tmp_path) == []


# --- kept aside -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file", "folder", "symlink", "dangling"])
def test_setting_aside_loses_nothing(tmp_path, kind):
    path = tmp_path / "thing"
    match kind:
        case "file":
            path.write_bytes(OLD)
        case "folder":
            path.mkdir()
            (path / "inner").write_bytes(OLD)
        case "symlink" | "dangling":
            (tmp_path / "target").write_bytes(OLD) if kind == "symlink" else None
            path.symlink_to(tmp_path / "target")
    before = path.lstat().st_ino
    aside = disk.set_aside(path, "damaged")
    assert not os.path.lexists(path)
    assert aside.lstat().st_ino == before
    assert aside.name.startswith("thing.damaged.2")


def test_names_of_what_is_kept_aside_never_collide(path):
    """Two in one microsecond, or a clock that was set back, must not overwrite the older one."""
    copies = [disk.copy_aside(path, "backup", ".json") for _ in range(30)]
    assert len(set(copies)) == 30
    assert all(copy.read_bytes() == OLD and copy.name.endswith(".json") for copy in copies)
    assert path.read_bytes() == OLD


def test_a_name_that_is_taken_is_not_used_again(path, monkeypatch):
    class Stopped(disk.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 1, tzinfo=zone)

    monkeypatch.setattr("pipeline.disk.datetime", Stopped)
    names = [disk.copy_aside(path, "backup", ".json").name for _ in range(3)]
    assert names == [f"file.json.backup.20260101T000000000000Z{number}.json" for number in ("", "-1", "-2")]


def test_a_copy_is_durable_before_it_is_relied_on(path, kernel):
    """The upgrade of a manifest begins with it: a copy that a power cut could take back is none."""
    copy = disk.copy_aside(path, "backup")
    temporary = f".{copy.name}.tmp"
    assert kernel == [f"fsync {temporary} {len(OLD)}", f"rename {temporary} {copy.name}", "fsync folder/"]


def test_a_copy_of_what_cannot_be_read_is_not_called_disk_trouble(path):
    with pytest.raises(UnreadableFile, match="Is a directory"):
        disk.copy_aside(path.parent, "backup")
    assert leftovers(path.parent.parent) == []


# --- reading --------------------------------------------------------------------------------------


def test_absence_stays_absence(tmp_path):
    for read in (disk.read_bytes, disk.sha256_of):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")


def test_cannot_read_is_neither_absent_nor_damaged(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path, loop):
        for read in (disk.read_bytes, disk.sha256_of):
            with pytest.raises(UnreadableFile) as trouble:
                read(path)
            assert "says nothing about the file's content" in str(trouble.value)


def test_a_pipe_or_a_device_is_refused_before_it_is_opened(tmp_path):
    pipe, device = tmp_path / "pipe", tmp_path / "device"
    os.mkfifo(pipe)  # opening it would wait for a writer
    device.symlink_to("/dev/zero")  # reading it would not end
    for path, kind in ((pipe, "pipe"), (device, "device")):
        for read in (disk.read_bytes, disk.sha256_of, lambda path: list(jsonl.lines(path))):
            with pytest.raises(UnreadableFile, match=f"it is a {kind}, not a file"):
                read(path)


def test_a_digest_goes_with_the_state_it_was_taken_from(path, monkeypatch):
    """A file that is written while it is hashed must not be remembered under the key of what it became."""
    real = hashlib.file_digest
    times = []

    def digest(stream, name):
        result = real(stream, name)
        if not times:
            path.write_bytes(NEW)
        times.append(result)
        return result

    monkeypatch.setattr(hashlib, "file_digest", digest)
    sha256, key = disk.sha256_of(path)
    assert len(times) == 2
    assert sha256 == hashlib.sha256(NEW).hexdigest()
    assert key == StatKey.of(path.stat())


@pytest.mark.parametrize("change", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_a_stat_key_notices_each_of_its_four_facts(change):
    """ctime is there because mtime can be set back, the inode because a file can be replaced by another."""
    facts = dict.fromkeys(("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"), 1)
    assert StatKey.of(SimpleNamespace(**facts)) == StatKey.of(SimpleNamespace(**facts))
    assert StatKey.of(SimpleNamespace(**facts)) != StatKey.of(SimpleNamespace(**{**facts, change: 2}))


@pytest.mark.parametrize("name", ["taken/below", "taken/two/below"])
def test_a_file_where_a_folder_belongs_is_named(tmp_path, name):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(DiskTrouble) as caught:
        disk.make_folder(tmp_path / name)
    assert caught.value.hint == (
        f"move {tmp_path / 'taken'} away, a file where a folder belongs, then run the same command again"
    )
    with pytest.raises(UnreadableFile, match="Not a directory") as unread:
        disk.read_bytes(tmp_path / name)
    assert f"move {tmp_path / 'taken'} away" in str(unread.value)
