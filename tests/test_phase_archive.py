"""archive: results, config and raw files, the same bytes from the same files, with checksums that hold."""

import gzip
import hashlib
import os
import subprocess
import tarfile

import pytest
from faulty_disk import FaultyDisk, leftovers, operations
from small_trial import CLOSED, OPEN, SmallTrial

from pipeline import ledger
from pipeline.errors import ContractBroken, DiskTrouble
from pipeline.fingerprints import Fingerprints
from pipeline.phases.archive import archive
from pipeline.providers.base import Binding, Submission

ESTIMATE = {"input_tokens": 10, "output_tokens": 20, "usd": 0.001}

NOT_RESULTS = [
    "run.json", "run.lock", ".doit.db", "logs/decisions.jsonl", ".emulator/store.json",
    "small-default/results/trial_manifest.json", "small-default/results/t0_control_p01/ledger.jsonl",
    "small-default/results/trial_manifest.json.backup.20260101T000000Z.json",
    "small-default/results/predictions.csv.damaged.20260101T000000Z",
    "small-default/results/t0_control_p01/a1/.BIJOutputSet.jsonl.tmp",
    "small-default/results/t0_control_p01/a1/.incoming/BIJOutputSet.jsonl",
    "small-default/results/t0_control_p01/a1/BIJOutputSet.jsonl.damaged.20260101T000000Z",
]  # fmt: skip


class Finished(SmallTrial):
    """A trial with a file under every name an archive holds, and some that it must not hold."""

    def __init__(self, folder):
        super().__init__(folder, [OPEN, CLOSED])
        self.ready()
        part = self.paths.part("t0_control_p01")
        other = self.paths.part("t0_treatment_p01")
        for path in (
            self.run.config, self.paths.attempts, self.paths.combined, self.paths.predictions, self.paths.usage,
            self.paths.scores, self.paths.significance, self.paths.costs, self.paths.report_md, self.paths.report_html,
            self.paths.figures / "b.svg", self.paths.figures / "a.svg", part.results, other.results, part.output_ids,
            part.conflicts, part.success_rows(1), part.error_rows(1), part.success_rows(2), part.attempt_requests(2),
            *(self.run.root / name for name in NOT_RESULTS),
        ):  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {path.name} in {path.parent.name}\n")

    def archive(self):
        self.said = []
        return archive(self.run, self.paths, self.index, Fingerprints(self.run.root), self.said.append)

    @property
    def members(self):
        with tarfile.open(self.paths.archive) as tar:
            return tar.getmembers()


@pytest.fixture
def done(quick_path):
    return Finished(quick_path)


def test_it_holds_results_config_and_raw_files_and_no_history(done):
    done.archive()
    root = done.run.root
    names = [member.name.removeprefix("run_r1/") for member in done.members]
    everything = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert set(names) == everything - set(NOT_RESULTS) - {
        "small-default/archive/small-default.tar.gz", "small-default/archive/SHA256SUMS",
    }  # fmt: skip
    assert names == sorted(names)
    assert {"experiment.yaml", "prepared/open_book.jsonl", "small-default/batch_inputs/index.json"} <= set(names)
    assert "small-default/results/t0_control_p01/a2/requests.jsonl" in names


def test_every_byte_comes_back(done, tmp_path):
    done.archive()
    with tarfile.open(done.paths.archive) as tar:
        for member in tar.getmembers():
            stored = tar.extractfile(member).read()
            assert stored == (done.run.root.parent / member.name).read_bytes()


def test_the_same_files_give_the_same_archive_wherever_and_whenever(done, tmp_path):
    done.archive()
    first = done.paths.archive.read_bytes()
    for path in done.run.root.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    done.archive()
    assert done.paths.archive.read_bytes() == first
    (elsewhere := tmp_path / "elsewhere").mkdir()
    other = Finished(elsewhere)
    other.archive()
    assert other.paths.archive.read_bytes() == first
    assert other.paths.checksums.read_bytes() == done.paths.checksums.read_bytes()


def test_nothing_of_the_machine_is_inside(done):
    done.archive()
    for member in done.members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.isreg()
        assert member.mode == 0o644
    header = done.paths.archive.read_bytes()[:10]
    assert header[4:8] == b"\0\0\0\0", "gzip's time stamp"
    assert not header[3] & 8, "gzip's file name"
    assert str(done.folder).encode() not in gzip.decompress(done.paths.archive.read_bytes())


def test_the_checksums_hold_for_every_file_and_the_archive(done):
    outcome = done.archive()
    lines = done.paths.checksums.read_text().splitlines()
    assert outcome.outputs[done.paths.checksums].rows == len(lines) == len(done.members) + 1
    for line in lines:
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((done.run.root / name).read_bytes()).hexdigest() == digest
    assert lines[-1].endswith("  small-default/archive/small-default.tar.gz")
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", done.paths.checksums], cwd=done.run.root, capture_output=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_outcome_names_the_archive(done):
    outcome = done.archive()
    assert outcome.artifacts == {
        "archive": "small-default/archive/small-default.tar.gz", "files": len(done.members),
    }  # fmt: skip
    written = outcome.outputs[done.paths.archive].written
    assert written.sha256 == hashlib.sha256(done.paths.archive.read_bytes()).hexdigest()


def test_a_file_that_is_gone_is_named_and_no_archive_is_written(done):
    """It once ended in a FileNotFoundError, and a half archive would have looked like a whole one."""
    done.paths.part("t0_treatment_p01").results.unlink()
    done.paths.report_md.unlink()
    with pytest.raises(ContractBroken) as broken:
        done.archive()
    assert "2 files that belong into the archive are not there, e.g. small-default/reports/report.md" in str(
        broken.value
    )
    assert not done.paths.archive.exists()
    assert not done.paths.checksums.exists()


def test_a_raw_file_that_is_not_what_was_downloaded_is_named_and_left_out(done):
    """It was packed as it was, with a checksum that vouched for the damage."""
    part = done.paths.part("t0_control_p01")
    part.ledger.unlink()
    raw = (part.success_rows(1), part.error_rows(1), part.success_rows(2))
    for number, names in ((1, raw[:2]), (2, raw[2:])):
        job = Submission(f"j{number}", "in", f"out{number}", part.results, 1, "m", "shown")
        ledger.intend(part.ledger, number, job, "d" * 64, Binding("fireworks", "lab", "here"), ESTIMATE)
        facts = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": 1} for path in names}
        ledger.collect(part.ledger, number, facts, "signed links")
    whole = done.archive()
    assert (done.said, "left_out" in whole.artifacts) == ([], False)
    raw[0].write_text("cut")
    raw[2].unlink()
    outcome = done.archive()
    assert outcome.artifacts["files"] == whole.artifacts["files"] - 2
    assert outcome.artifacts["left_out"] == [
        f"small-default/results/t0_control_p01/{name}" for name in ("a1/BIJOutputSet.jsonl", "a2/BIJOutputSet.jsonl")
    ]
    names = done.paths.checksums.read_text()
    assert "a1/error-data" in names
    assert "a1/BIJOutputSet.jsonl" not in names
    assert [line.partition(", so")[0].rpartition("/")[2] for line in done.said] == [
        "BIJOutputSet.jsonl: it is not what was downloaded", "BIJOutputSet.jsonl: it is not there any more",
    ]  # fmt: skip


def test_a_link_out_of_the_run_is_named_and_not_followed(done, tmp_path):
    """Whatever it led to, a file of keys too, was packed and given away with the results."""
    secret = tmp_path / "auth.ini"
    secret.write_text("api_key = canary-7f3a9c51e2")
    figure, raw = done.paths.figures / "mine.svg", done.paths.part("t0_control_p01").attempt(1) / "BIJOutputSet.2.jsonl"
    for link in (figure, raw):
        link.symlink_to(secret)
    assert done.archive().artifacts["left_out"] == sorted(map(done.paths.relative, (figure, raw)))
    assert len([line for line in done.said if "a link that leads out of the run" in line]) == 2
    assert b"canary" not in gzip.decompress(done.paths.archive.read_bytes())


def test_a_failing_disk_leaves_the_old_archive(done):
    done.archive()
    old = done.paths.archive.read_bytes(), done.paths.checksums.read_bytes()
    done.paths.report_md.write_text("newer")
    steps = len(operations(done.archive))
    new = done.paths.archive.read_bytes(), done.paths.checksums.read_bytes()
    for fail_at in range(steps):
        done.paths.archive.write_bytes(old[0])
        done.paths.checksums.write_bytes(old[1])
        with FaultyDisk(fail_at) as faulty, pytest.raises(DiskTrouble):
            done.archive()
        assert faulty.fired
        assert leftovers(done.paths.archive_folder) == []
        assert done.paths.archive.read_bytes() in (old[0], new[0])
        assert done.paths.checksums.read_bytes() in (old[1], new[1])
