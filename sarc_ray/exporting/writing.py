"""One CSV or Parquet file, written piece by piece; it is there as a whole, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from sarc_ray import storage
from sarc_ray.errors import ConfigError

_ENDINGS = (".csv", ".parquet")
Write = Callable[[pa.Table], None]


@contextlib.contextmanager
def writing_rows(to: str, schema: pa.Schema) -> Iterator[Write]:
    """A function that adds rows to a file; where the block raises, none is written.

    Args:
        to: a ``.csv`` (UTF-8, texts in quotes, nothing where a value is missing) or ``.parquet``.
        schema: of the file; what is added is cast to it.

    Raises:
        ConfigError: another ending.
        StorageError: the file cannot be written.
    """
    if not to.endswith(_ENDINGS):
        raise ConfigError(f"--to: found {to!r}; name a file that ends in .csv or .parquet")
    with storage.writing(to) as sink, _writer(sink, schema, as_csv=to.endswith(".csv")) as writer:
        yield lambda part: writer.write_table(part.cast(schema))


def _writer(sink: BinaryIO, schema: pa.Schema, *, as_csv: bool) -> pcsv.CSVWriter | pq.ParquetWriter:
    return pcsv.CSVWriter(sink, schema) if as_csv else pq.ParquetWriter(sink, schema, compression="zstd")
