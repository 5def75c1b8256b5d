"""A price list: what each model's tokens cost, from a CSV or JSON file of yours.

Columns, or keys of JSON objects: `model` as the log names it, `usd_per_million_in`,
`usd_per_million_out`, and optionally `from`, the day or time from which the price holds (UTC; none:
always). No prices of any vendor are part of this program, and a model that is not listed has a cost
that is unknown. Queries read the list as the table `prices`.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from madlog.analytics.as_of import parse_time
from madlog.analytics.errors import AnalyticsError, BadTime

__all__ = ("NO_PRICES", "BadPrices", "Price", "PriceList", "read_prices")

_NEEDED = ("model", "usd_per_million_in", "usd_per_million_out")
_FROM = "from"
_BYTES_MAX = 16 << 20
# 0001-01-01, the first day that a time can name.
_ALWAYS_US = -62_135_596_800_000_000
_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("usd_per_million_in", pa.float64()),
        ("usd_per_million_out", pa.float64()),
        ("since", pa.timestamp("us")),
    ]
)


class BadPrices(AnalyticsError, ValueError):
    """The file is no price list: a CSV or JSON of models and their dollars a million tokens."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens of a model cost from a moment on."""

    model: str
    usd_in: float
    usd_out: float
    since_us: int = _ALWAYS_US


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices by model and moment; without any, every cost stays what the log says."""

    prices: tuple[Price, ...] = ()

    def table(self) -> Any:
        """Return the Arrow table that queries see as `prices`."""
        rows = [(one.model, one.usd_in, one.usd_out, one.since_us) for one in self.prices]
        columns = zip(*rows, strict=True) if rows else ([] for _ in _SCHEMA)
        arrays = [
            pa.array(list(column), field.type)
            for column, field in zip(columns, _SCHEMA, strict=True)
        ]
        return pa.table(arrays, schema=_SCHEMA)


NO_PRICES = PriceList()


def read_prices(path: Path) -> PriceList:
    """Read a price list; raises BadPrices, which says where it is wrong and what to do."""
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise BadPrices(
            f"the price list {path} cannot be read: {error.strerror}; name a CSV or JSON file"
        ) from error
    if len(data) > _BYTES_MAX:
        raise BadPrices(f"{path.name} is larger than 16 MB: this is no price list")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadPrices(f"{path.name} is not UTF-8: save the file as UTF-8") from error
    if text.lstrip()[:1] in ("[", "{"):
        rows = _json_rows(text, path.name)
    else:
        rows = _csv_rows(text, path.name)
    found: dict[tuple[str, int], Price] = {}
    for where, row in rows:
        price = _price(where, row)
        key = price.model, price.since_us
        if key in found:
            raise BadPrices(
                f"{where} gives {price.model[:80]!r} a second price of the same time: keep one, or "
                "say from when each holds"
            )
        found[key] = price
    if not found:
        raise BadPrices(f"{path.name} holds no prices: give each model a row")
    return PriceList(tuple(found[key] for key in sorted(found)))


def _csv_rows(text: str, name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if "\0" in text:
        raise BadPrices(f"{name} holds a NUL byte: this is no CSV; export it as UTF-8")
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_names(f"{name}:1", header)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"{name}:{reader.line_num}"
            if len(row) != len(header):
                raise BadPrices(f"{where} has {len(row)} columns, and the first line {len(header)}")
            yield where, dict(zip(header, (cell.strip() for cell in row), strict=True))
    except csv.Error as error:
        raise BadPrices(f"{name}:{reader.line_num} is no CSV: {error}") from error


def _json_rows(text: str, name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadPrices(f"{name} is not JSON: {error}") from error
    if not isinstance(document, list):
        raise BadPrices(f"{name} must hold a JSON list of objects, one for each model")
    for number, row in enumerate(document, 1):
        where = f"{name}, entry {number},"
        if not isinstance(row, dict):
            raise BadPrices(f"{where} is no object with {', '.join(_NEEDED)}")
        _check_names(where, list(row))
        yield where, row


def _check_names(where: str, names: list[str]) -> None:
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise BadPrices(f"{where} has no {missing[0]}: a price list has {', '.join(_NEEDED)}")
    other = sorted(set(names) - {*_NEEDED, _FROM})
    if other:
        raise BadPrices(
            f"{where} has {other[0][:80]!r}, which a price list does not: rename it to one of "
            f"{', '.join(_NEEDED)} or {_FROM}, or leave it out"
        )
    if len(set(names)) < len(names):
        raise BadPrices(f"{where} has a column twice: keep one")


def _price(where: str, row: Mapping[str, Any]) -> Price:
    model = row["model"]
    if not isinstance(model, str) or not model:
        raise BadPrices(f"{where} names no model: give it as the log does (`madlog ask cost`)")
    since = row.get(_FROM)
    try:
        since_us = _ALWAYS_US if since in (None, "") else parse_time(str(since))
    except BadTime as error:
        raise BadPrices(f"{where} from: {error}") from error
    usd_in, usd_out = (_usd(where, row, name) for name in _NEEDED[1:])
    return Price(model, usd_in, usd_out, since_us)


def _usd(where: str, row: Mapping[str, Any], name: str) -> float:
    value = row[name]
    try:
        usd = math.nan if isinstance(value, bool | None) else float(value)
    except (TypeError, ValueError, OverflowError):
        usd = math.nan
    if not math.isfinite(usd) or usd < 0:
        raise BadPrices(
            f"{where} {name} is {str(value)[:40]!r}: give dollars a million tokens, 0 or more, and "
            "leave out a model whose price is unknown"
        )
    return usd
