"""Rows of a hub dataset: `python -m stages.collect.fetch --id OWNER/NAME --out FILE.jsonl`.

Or of a folder that holds what a dataset holds. JSONL, JSON and CSV files are read; what is no row
goes to `FILE.rejects.jsonl` with `index` (the record's number), `reason` and `text`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.collect.progress import replace
from stages.core.errors import CartwrightError, InputError
from stages.intent.rows import Row, parse_row
from stages.runtime.secret import read_secret

SUFFIXES = (".jsonl", ".json", ".csv")
TOKEN_FILE = Path("/run/secrets/hf_token")
# Files that describe a dataset instead of holding it.
_NO_ROWS = ("dataset_infos.json", "dataset_info.json", "state.json")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetches rows; returns the exit code (2 for wrong input)."""
    given = _parse(arguments)
    try:
        fetch(given.id, given.revision, given.file, given.out)
    except CartwrightError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.collect.fetch",
        description="Rows of a Hugging Face hub dataset, or of a folder, as JSONL.",
    )
    parser.add_argument("--id", required=True, metavar="OWNER/NAME", help="or a folder")
    parser.add_argument("--out", type=Path, required=True, metavar="JSONL")
    parser.add_argument("--revision", default="", help="commit, branch or tag; newest if not given")
    parser.add_argument("--file", default="", help="which of the dataset's files")
    return parser.parse_args(arguments)


def fetch(dataset: str, revision: str, name: str, out: Path) -> None:
    """Writes a dataset's rows in the row format.

    Raises:
        InputError: the dataset or file cannot be had, holds no row, or `out` is there already.
    """
    if out.exists():
        raise InputError(f"{out.name} is there already; name another file, or delete it")
    if Path(dataset).is_dir():
        folder = Path(dataset)
        if revision:
            raise InputError("--revision is of the hub; a folder has none")
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
        path = folder / choose_file(dataset, names, name)
        convert(path, f"folder:{folder.name}", out)
        return
    with tempfile.TemporaryDirectory() as folder_name:
        path, commit = _download(dataset, revision, name, Path(folder_name))
        print(f"{dataset} at revision {commit}: {path.name}", flush=True)
        convert(path, f"hub:{dataset}@{commit}", out)


def choose_file(dataset: str, names: Sequence[str], wanted: str) -> str:
    """Which file of a dataset to read.

    Raises:
        InputError: the wanted one is not there or of another kind, or there is not exactly one.
    """
    readable = sorted(
        name for name in names if name.endswith(SUFFIXES) and Path(name).name not in _NO_ROWS
    )
    listed = ", ".join(readable[:10]) or "none that can be read"
    if wanted:
        if wanted not in readable:
            raise InputError(f"{dataset} has no {wanted} that can be read; it has {listed}")
        return wanted
    if len(readable) == 1:
        return readable[0]
    if not readable and any(name.endswith(".parquet") for name in names):
        raise InputError(
            f"{dataset} holds only Parquet files, which are not read here; save it as JSONL "
            "(`to_json` in the library datasets) and give that folder instead"
        )
    raise InputError(f"{dataset} has {len(readable)} files, name one with --file: {listed}")


def _download(dataset: str, revision: str, name: str, folder: Path) -> tuple[Path, str]:
    """The file of a hub dataset and the commit that it is from.

    Raises:
        InputError: the hub cannot be reached, or has no such dataset, revision or file.
    """
    os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    import httpx2
    from huggingface_hub import HfApi, errors, hf_hub_download

    token: str | bool = read_secret(TOKEN_FILE) or False
    named = f"hub dataset {dataset}" + (f" at {revision}" if revision else "")
    try:
        info = HfApi(token=token).dataset_info(dataset, revision=revision or None, timeout=30)
        names = [one.rfilename for one in info.siblings or ()]
        file = choose_file(dataset, names, name)
        commit = str(info.sha)
        path = hf_hub_download(
            dataset,
            file,
            repo_type="dataset",
            revision=commit,
            local_dir=folder,
            token=token,
        )
    except errors.GatedRepoError:
        raise InputError(
            f"{named}: it is gated and the token does not open it; accept its terms on the hub and "
            "give a token of that account in HF_TOKEN"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{named}: there is none, or it is private; check the id, or give a token that may "
            "read it in HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{named}: there is no such revision; check --revision") from None
    except errors.HFValidationError:
        raise InputError(f"{named}: an id is OWNER/NAME, or a folder that is there") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, httpx2.TransportError):
        raise InputError(
            f"{named}: the hub cannot be reached; connect this machine, or get the dataset "
            "elsewhere and give its folder instead"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise InputError(f"{named}: the hub answered {status}; try again later") from None
    return Path(path), commit


def convert(path: Path, source: str, out: Path) -> None:
    """Writes the rows of a JSONL, JSON or CSV file in the row format, and says how many.

    Raises:
        InputError: the file cannot be read, or none of its records is a row.
    """
    rows: list[Row] = []
    rejects: list[str] = []
    first_reason = ""
    for index, record in enumerate(_records(path), 1):
        try:
            rows.append(_row(record, source))
        except ValueError as error:
            first_reason = first_reason or f"record {index}: {error}"
            text = record if isinstance(record, str) else json.dumps(record, ensure_ascii=False)
            rejects.append(
                json.dumps({"index": index, "reason": str(error), "text": text}, ensure_ascii=False)
            )
    if not rows:
        raise InputError(
            f"{path.name} holds no row ({first_reason or 'it is empty'}); a row has a prompt and a "
            "completion"
        )
    rejected = out.with_name(f"{out.name}.rejects.jsonl")
    replace(rejected, rejects)
    replace(out, (row.to_json() for row in rows))
    by_language = Counter(row.language or "unknown" for row in rows)
    counts = ", ".join(f"{name} {count:,}" for name, count in sorted(by_language.items()))
    print(f"{out.name}: {len(rows):,} rows ({counts})")
    if rejects:
        print(f"{rejected.name}: {len(rejects):,} records are no rows; the first is {first_reason}")


def _row(record: Any, source: str) -> Row:
    """One record as a row, its source kept in it; raises ValueError as `parse_row`."""
    if isinstance(record, str):
        return parse_row(record)  # Says what is wrong with it.
    if not isinstance(record, dict):
        raise ValueError("the row is not a JSON object")
    # A CSV file has "" where there is nothing, and None for cells beyond the header.
    fields = {key: value for key, value in record.items() if key and value not in (None, "")}
    if isinstance(fields.get("completion"), dict):
        fields["completion"] = json.dumps(fields["completion"])
    return parse_row(json.dumps({**fields, "source": source}, ensure_ascii=False))


def _records(path: Path) -> Iterator[Any]:
    """The objects of a file; a line that is no JSON comes as its text."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                yield from csv.DictReader(file)
                return
            if path.suffix == ".json" and file.read(1) == "[":
                file.seek(0)
                yield from json.load(file)
                return
            file.seek(0)
            for line in file:
                if line.strip():
                    try:
                        yield json.loads(line)
                    except (ValueError, RecursionError):
                        yield line.strip()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not UTF-8 text (byte {error.start})") from None
    except (csv.Error, ValueError, RecursionError) as error:
        raise InputError(f"{path.name} is damaged: {error}") from None


if __name__ == "__main__":
    raise SystemExit(main())
