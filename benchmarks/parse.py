"""parse against its peers, in one run: CPU seconds, ratios, peak memory.

    python benchmarks/parse.py [ROWS] [--rounds N]         200,000 rows (400 MB) and 3 rounds unless said

Each job turns the same combined results into the same `predictions.csv`, in a process of its own:

- `parse`: this project, with validation, sha256 of what it writes, `usage.csv` and fsync.
- `lean loop`: the shortest orjson loop, without any check.
- `floor`: of `parse` only what is not Python: read, decode, encode and quote the answers, hash and write them. No
  cells, no ids, no checks, so less than any tool in Python takes.
- `json+csv`: a plain tool of the standard library with the checks of `parse`, which reads back what it wrote to
  count its rows and hash it. It gets a tenth of the rows, scaled.
- polars (streaming), pyarrow, DuckDB: without checks, and without the guard against formulas in spreadsheets.
- `sha256sum` and `cp`: what touching the bytes costs.

Stops unless the loops give the project's bytes and the libraries its answers.
"""

from __future__ import annotations

import argparse
import csv
import filecmp
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import data
import measure

from pipeline import parts
from pipeline.cells import guard, unguard
from pipeline.paths import TrialPaths
from pipeline.phases.parse import PREDICTION_COLUMNS, USAGE_COLUMNS, parse

TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int, nargs="?", default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        JOBS[given.job](given.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), given.rows, given.rounds)


def compare(folder: Path, rows: int, rounds: int) -> None:
    """Generate, measure, check that all agree, print."""
    tenth, scale = folder / "tenth", rows / max(rows // 10, 1)
    for place, count in ((folder, rows), (tenth, max(rows // 10, 1))):
        paths, _ = data.trial(place, count)
    paths = trial(folder)[0]
    size = paths.combined.stat().st_size
    jobs = {job: [sys.executable, __file__, "--job", job, "--folder", str(folder)] for job in JOBS}
    jobs["json+csv"][-1] = str(tenth)
    jobs["sha256sum"] = ["sha256sum", str(paths.combined)]
    jobs["cp"] = ["cp", str(paths.combined), str(folder / "copy")]
    costs = measure.interleaved(jobs, rounds)
    parse(*trial(tenth))
    for loop in (folder / "lean loop.csv", tenth / "json+csv.csv"):
        assert filecmp.cmp(loop, trial(loop.parent)[0].predictions, shallow=False), loop
    for library in ("polars", "pyarrow", "duckdb"):
        for ours, theirs in zip_longest(answers(paths.predictions), answers(folder / f"{library}.csv")):
            assert tuple(map(unguard, ours)) == theirs, (library, ours, theirs)
    start = costs.pop("nothing").seconds
    ours = costs["parse"].seconds - start
    print(f"{rows:,} rows, {size / 1e6:,.0f} MB; CPU seconds without those of starting Python, medians of {rounds}")
    print(f"{'job':<12}{'CPU':>9}{'to parse':>10}{'peak':>10}")
    for job, cost in costs.items():
        idle = 0.0 if job in ("sha256sum", "cp") else start
        seconds = (cost.seconds - idle) * (scale if job == "json+csv" else 1)
        print(f"{job:<12}{seconds:>8.2f}s{seconds / ours:>9.2f}x{cost.megabytes:>7.0f} MB")


def trial(folder: Path) -> tuple[TrialPaths, parts.Index]:
    paths = TrialPaths(folder / "run_bench" / "trial")
    return paths, parts.read(paths.index)


def answers(path: Path) -> Iterator[tuple[str, ...]]:
    """The cells that every job must agree on."""
    columns = ("custom_id", "item_id", "sample_index", "finish_reason", "response_text", *TOKENS)
    with open(path, encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield tuple(row[column] for column in columns)


# --- the jobs -------------------------------------------------------------------------------------


def project(folder: Path) -> None:
    parse(*trial(folder))


def lean_loop(folder: Path) -> None:
    import orjson

    with open(trial(folder)[0].combined, "rb") as source, open(folder / "lean loop.csv", "wb", 1 << 20) as target:
        target.write(('"' + '","'.join(PREDICTION_COLUMNS) + '"\r\n').encode())
        for line in source:
            row = orjson.loads(line)
            name, response = row["custom_id"], row["response"]
            choice, usage = response["choices"][0], response["usage"]
            text = choice["message"]["content"].encode().replace(b'"', b'""')
            if text[0] in b"=+-@\t\r'":
                text = b"'" + text
            cells = name.replace("|", '","')
            target.write(f'"{name}","{cells}","{response["id"]}","{choice["finish_reason"]}","'.encode())
            target.write(text)
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            counts = f'{usage["prompt_tokens"]}","{usage["completion_tokens"]}","{usage["total_tokens"]}","{cached}'
            target.write(f'","{counts}","ok",""\r\n'.encode())


def floor(folder: Path) -> None:
    import orjson

    digest = hashlib.sha256()
    with open(trial(folder)[0].combined, "rb") as source, open(folder / "floor", "wb") as target:
        while block := [
            orjson.loads(line)["response"]["choices"][0]["message"]["content"].encode().replace(b'"', b'""')
            for line in islice(source, 32)
        ]:
            data = b"".join(block)
            digest.update(data)
            target.write(data)


def json_and_csv(folder: Path) -> None:
    """Strict JSON, every id in its place, what was written read back: what a careful script would do."""
    paths, index = trial(folder)
    read = hashlib.sha256()

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            raise ValueError("a key stands there twice")
        return value

    def lines() -> Iterator[Any]:
        with open(paths.combined, "rb") as source:
            for line in source:
                read.update(line)
                yield json.loads(line.decode(), object_pairs_hook=unique, parse_constant=refuse)

    with (
        open(folder / "json+csv.csv", "w", encoding="utf-8", newline="") as predictions,
        open(folder / "json+csv usage.csv", "w", encoding="utf-8", newline="") as usage,
    ):
        rows, used = csv.writer(predictions, quoting=csv.QUOTE_ALL), csv.writer(usage, quoting=csv.QUOTE_ALL)
        rows.writerow(PREDICTION_COLUMNS)
        used.writerow(USAGE_COLUMNS)
        source = lines()
        for part in index.parts:
            ids = hashlib.sha256()
            for row in islice(source, part.rows):
                name, response = row["custom_id"], row["response"]
                ids.update(f"{name}\n".encode())
                choice, counts = response["choices"][0], response["usage"]
                tokens = [counts[token] for token in TOKENS] + [counts["prompt_tokens_details"]["cached_tokens"]]
                text = choice["message"]["content"]
                rows.writerow(
                    [
                        *map(guard, (name, *name.split("|"), response["id"], choice["finish_reason"], text)),
                        *tokens,
                        "ok",
                        "",
                    ]
                )
                used.writerow([guard(name), "ok", *tokens])
            assert ids.hexdigest() == part.ids_sha256
        assert next(source, None) is None
    for name in ("json+csv.csv", "json+csv usage.csv"):
        with open(folder / name, encoding="utf-8", newline="") as stream:
            assert sum(1 for _ in csv.reader(stream)) == index.rows + 1
        with open(folder / name, "rb") as stream:
            hashlib.file_digest(stream, "sha256").hexdigest()


def polars(folder: Path) -> None:
    import polars as pl

    fields = ("dataset", "item_id", "condition", "temp", "sample_index", "type")
    response = pl.col("response").struct
    choice = response.field("choices").list.first().struct
    usage = response.field("usage").struct
    name = pl.col("custom_id").str.split_exact("|", len(fields) - 1).struct
    pl.scan_ndjson(trial(folder)[0].combined).select(
        "custom_id",
        *(name.field(f"field_{number}").alias(field) for number, field in enumerate(fields)),
        response.field("id").alias("request_id"),
        choice.field("finish_reason"),
        choice.field("message").struct.field("content").alias("response_text"),
        *(usage.field(token) for token in TOKENS),
        usage.field("prompt_tokens_details").struct.field("cached_tokens"),
        pl.lit("ok").alias("status"),
        pl.lit("").alias("error"),
    ).sink_csv(folder / "polars.csv", quote_style="always", line_terminator="\r\n")


def pyarrow(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.json as pa_json

    columns = [column for column in PREDICTION_COLUMNS if column not in ("status", "error")]
    writer = None
    for batch in pa_json.open_json(trial(folder)[0].combined):
        response, fields = batch["response"], pc.split_pattern(batch["custom_id"], "|")
        choice = pc.list_element(pc.struct_field(response, "choices"), 0)
        usage = pc.struct_field(response, "usage")
        values = [
            batch["custom_id"],
            *(pc.list_element(fields, number) for number in range(6)),
            pc.struct_field(response, "id"),
            pc.struct_field(choice, "finish_reason"),
            pc.struct_field(choice, ["message", "content"]),
            *(pc.struct_field(usage, token) for token in TOKENS),
            pc.struct_field(usage, ["prompt_tokens_details", "cached_tokens"]),
        ]
        table = pa.record_batch(values, names=columns)
        if writer is None:
            options = pa_csv.WriteOptions(quoting_style="all_valid")
            writer = pa_csv.CSVWriter(folder / "pyarrow.csv", table.schema, write_options=options)
        writer.write_batch(table)
    assert writer is not None
    writer.close()


def duckdb(folder: Path) -> None:
    import duckdb as db

    fields = ("dataset", "item_id", "condition", "temp", "sample_index", "type")
    names = ", ".join(f"split_part(custom_id, '|', {number}) as {field}" for number, field in enumerate(fields, 1))
    tokens = ", ".join(f"response.usage.{token} as {token}" for token in TOKENS)
    db.execute(
        f"""copy (
            select custom_id, {names}, response.id as request_id, response.choices[1].finish_reason as finish_reason,
                response.choices[1].message.content as response_text, {tokens},
                response.usage.prompt_tokens_details.cached_tokens as cached_tokens, 'ok' as status, '' as error
            from read_json('{trial(folder)[0].combined}', format = 'newline_delimited')
        ) to '{folder / "duckdb.csv"}' (header, force_quote *)"""
    )


def nothing(folder: Path) -> None:
    trial(folder)


JOBS: dict[str, Callable[[Path], None]] = {
    "nothing": nothing,
    "parse": project,
    "lean loop": lean_loop,
    "floor": floor,
    "json+csv": json_and_csv,
    "polars": polars,
    "pyarrow": pyarrow,
    "duckdb": duckdb,
}

if __name__ == "__main__":
    main()
