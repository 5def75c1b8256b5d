"""A price list prices what it lists, from when it says so; a bad one is refused with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_questions import about, decision, log_of

from madlog.analytics.output import rows
from madlog.analytics.prices import BadPrices, Price, PriceList, read_prices
from madlog.analytics.questions import ask
from madlog.analytics.sql import query
from madlog.schemas import LlmCall
from madlog.topics import EventLog

HEAD = "model,usd_per_million_in,usd_per_million_out"
SECOND = 1_000_000


def wrote(folder: Path, text: str | bytes, name: str = "prices.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def called(n: int, model: str | None, at_s: int = 1, **known: Any) -> LlmCall:
    fields = {**about(n, "bot"), "occurred_at": at_s * SECOND}
    return LlmCall(**fields, model=model, **known)


async def saved(log: EventLog, prices: PriceList, **params: str) -> tuple[Any, ...]:
    result = await ask(log, "savings", params, prices=prices)
    (row,) = rows(result)
    names = ("calls_avoided", "usd_avoided", "calls_of_unknown_cost", "models_of_unknown_cost")
    return tuple(row[name] for name in names)


async def test_costs_stand_beside_what_the_list_makes_of_them() -> None:
    log = await log_of(
        called(1, "big", tokens_in=1_000_000, tokens_out=0, cost_usd=1.0),
        called(2, "big", 5, tokens_in=1_000_000, tokens_out=100_000),
        called(3, "other", tokens_in=7, tokens_out=7),
    )
    prices = PriceList((Price("big", 2.0, 10.0), Price("big", 4.0, 10.0, 4 * SECOND)))
    found = rows(await ask(log, "cost", {}, prices=prices))
    names = ("spent_on", "calls", "cost_usd", "calls_of_unknown_cost", "usd_by_price_list")
    assert [tuple(row[name] for name in names) for row in found] == [
        ("big", 2, 1.0, 1, 7.0),
        ("other", 1, None, 1, None),
    ]


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    csv = wrote(tmp_path, f"\ufeff{HEAD},from\r\nbig,2.5,10,\r\n\r\nsmall, 0 ,1e0,2026-01-31\r\n")
    entries = [
        {"model": "small", "usd_per_million_in": 0, "usd_per_million_out": 1, "from": "2026-01-31"},
        {"model": "big", "usd_per_million_in": 2.5, "usd_per_million_out": 10},
    ]
    other = wrote(tmp_path, json.dumps(entries), "prices.json")
    made = read_prices(csv)
    assert made == read_prices(other)
    assert [(one.model, one.usd_in, one.usd_out) for one in made.prices] == [
        ("big", 2.5, 10.0),
        ("small", 0.0, 1.0),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "prices.csv:1 has no model"),
        (HEAD, "holds no prices"),
        ("model,usd_per_million_in\nbig,1", "prices.csv:1 has no usd_per_million_out"),
        (f"{HEAD},form\nbig,1,2,x", "'form'.*rename it"),
        (f"{HEAD},model\nbig,1,2,big", "twice"),
        (f"{HEAD}\nbig,1", "prices.csv:2 has 2 columns"),
        (f"{HEAD}\nbig,-1,2", "prices.csv:2 usd_per_million_in is '-1'"),
        (f"{HEAD}\nbig,1,nan", "usd_per_million_out is 'nan'"),
        (f"{HEAD}\nbig,1,inf", "'inf'"),
        (f"{HEAD}\nbig,1,", "usd_per_million_out is ''.*leave out"),
        (f"{HEAD}\nbig,cheap,2", "'cheap'"),
        (f"{HEAD}\n,1,2", "names no model"),
        (f"{HEAD}\nbig,1,2\nbig,2,3", "prices.csv:3 gives 'big' a second price"),
        (f"{HEAD},from\nbig,1,2,2026-01-01\nbig,2,3,2026-01-01T00:00Z", "second price"),
        (f"{HEAD},from\nbig,1,2,spring", "prices.csv:2 from: 'spring' is not a time"),
        (f'{HEAD}\n"big,1,2', "is no CSV"),
        (f"{HEAD}\nbig,1,2\0", "NUL"),
        (b"\xff\xfe", "not UTF-8"),
        ("{}", "must hold a JSON list"),
        ("[1", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "entry 1, is no object"),
        ('[{"model": "big"}]', "entry 1, has no usd_per_million_in"),
        ('[{"model": 7, "usd_per_million_in": 1, "usd_per_million_out": 1}]', "names no model"),
        ('[{"model": "b", "usd_per_million_in": true, "usd_per_million_out": 1}]', "'True'"),
        ('[{"model": "b", "usd_per_million_in": null, "usd_per_million_out": 1}]', "'None'"),
        ('[{"model": "b", "usd_per_million_in": NaN, "usd_per_million_out": 1}]', "'nan'"),
    ],
)
def test_a_bad_list_is_refused_with_where_and_what_to_do(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(BadPrices, match=told):
        read_prices(wrote(tmp_path, text))


def test_a_list_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPrices, match="No such file"):
        read_prices(tmp_path / "none.csv")
    with pytest.raises(BadPrices, match="directory"):
        read_prices(tmp_path)


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_a_list_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = wrote(tmp_path_factory.mktemp("any"), data)
    try:
        made = read_prices(path)
    except BadPrices:
        return
    assert made.prices


async def test_a_call_is_priced_by_its_model_and_time_and_what_is_not_listed_stays_unknown() -> (
    None
):
    made = [decision(1, "dtr"), decision(2, "dtr"), decision(3, "imperator")]
    tokens = {"tokens_in": 1_000_000, "tokens_out": 100_000}
    log = await log_of(
        *made,
        called(4, "big", at_s=10, **tokens),
        called(5, "big", at_s=20, **tokens),
        called(6, "odd", at_s=20, **tokens),
        called(7, None, at_s=20, **tokens),
    )
    assert await saved(log, PriceList()) == (2, None, 2, "big, odd, unknown")
    prices = PriceList((Price("big", 2.0, 10.0), Price("big", 4.0, 20.0, since_us=15 * SECOND)))
    # The calls of big cost 3 and 6 dollars; half of all calls are of models of unknown cost.
    assert await saved(log, prices) == (2, 4.5, 1, "odd, unknown")
    late = PriceList((Price("big", 4.0, 20.0, since_us=15 * SECOND),))
    assert (await saved(log, late))[-1] == "big, odd, unknown"
    # One price for all models goes before the list.
    assert await saved(log, prices, usd_in="1", usd_out="0") == (2, 2.0, 0, None)


async def test_a_listed_price_goes_before_what_the_log_says_and_that_before_nothing() -> None:
    log = await log_of(
        decision(1, "dtr"),
        called(2, "big", tokens_in=1_000_000, tokens_out=0, cost_usd=7.0),
        called(3, "small", tokens_in=1_000_000, tokens_out=0, cost_usd=1.0),
    )
    assert await saved(log, PriceList()) == (1, 4.0, 0, None)
    assert await saved(log, PriceList((Price("big", 3.0, 0.0),))) == (1, 2.0, 0, None)


async def test_every_query_can_read_the_list_and_it_is_empty_where_none_is_given() -> None:
    log = await log_of()
    assert (await query(log, "FROM prices")).table.num_rows == 0
    prices = PriceList((Price("big", 2.5, 10.0),))
    result = await query(log, "SELECT model, usd_per_million_in FROM prices", prices=prices)
    assert list(rows(result)) == [{"model": "big", "usd_per_million_in": 2.5}]
