"""Parquet with the pictures in it, as Hugging Face keeps data sets: `train-00000-of-00003.parquet`.

Columns: `image` {bytes, path}, `captions` (a list), and the ID where the path does not give it. A row group is bounded in rows and
bytes: it is what a reader, and this writer, hold in memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from img2seq.data.picture import picture_bytes
from img2seq.data.sources.source import KEPT_ID
from img2seq.datasets.convert.folder import SPEC, Work
from img2seq.datasets.convert.sample import Sample, are_kept, shards
from img2seq.errors import DataError

GROUP_ROWS, GROUP_BYTES = 100, 16 << 20  # memory takes a few times as much
NEXT = ("",)


def check(samples: Sequence[Sample], name_problems: Mapping[str, str]) -> None:
    """Raise DataError where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise DataError(
            'Parquet is written by pyarrow, which is not installed: pip install "img2seq[formats]"'
        ) from None


def write(samples: Sequence[Sample], work: Work, shard_size: int) -> None:
    """Write shard after shard, a row group at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = are_kept(samples, [sample.name for sample in samples])
    schema = _schema(pa, kept=kept)
    for side, number, n_shards, part in shards(samples, shard_size):
        name = f"{side}-{number:05}-of-{n_shards:05}.parquet"
        if work.has(name):
            work.advance(len(part))
            continue
        # pictures are compressed already, and no statistics of their bytes help anyone
        with (
            work.file(name) as path,
            pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False) as file,
        ):
            rows: list[dict[str, Any]] = []
            n_bytes = 0
            for sample in part:
                data = picture_bytes(sample.picture, SPEC)
                if rows and (len(rows) == GROUP_ROWS or n_bytes + len(data) > GROUP_BYTES):
                    file.write_table(pa.Table.from_pylist(rows, schema=schema))
                    rows, n_bytes = [], 0
                row = {"image": {"bytes": data, "path": sample.name}, "captions": list(sample.captions)}
                rows.append(row | ({KEPT_ID: sample.written_id} if kept else {}))
                n_bytes += len(data)
                work.advance(1)
            file.write_table(pa.Table.from_pylist(rows, schema=schema))


def _schema(pa: Any, *, kept: bool) -> Any:
    """Return the columns, with what Hugging Face's `datasets` needs to know to show the pictures."""
    text = {"dtype": "string", "_type": "Value"}
    features = {"image": {"_type": "Image"}, "captions": {"feature": text, "_type": "Sequence"}}
    columns = [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("captions", pa.list_(pa.string())),
    ]
    if kept:
        features[KEPT_ID] = text
        columns.append((KEPT_ID, pa.string()))
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features}})})
