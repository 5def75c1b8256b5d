import copy
from typing import Any

import pytest

from madlog.schemas.codec import released_schemas
from madlog.schemas.evolution import check_released, compatible

BASE: dict[str, Any] = {
    "type": "record",
    "name": "madlog.Thing",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "count", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "mood",
            "type": {"type": "enum", "name": "madlog.Mood", "symbols": ["calm", "busy"]},
        },
        {"name": "before", "type": ["null", "madlog.Mood"], "default": None},
        {
            "name": "items",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "madlog.Item",
                    "fields": [{"name": "size", "type": "long"}],
                },
            },
            "default": [],
        },
        {"name": "extra", "type": {"type": "map", "values": "string"}, "default": {}},
        {"name": "hash", "type": {"type": "fixed", "name": "madlog.Hash", "size": 8}},
        {"name": "next", "type": ["null", "madlog.Thing"], "default": None},
    ],
}


def changed(**changes: dict[str, Any] | None) -> dict[str, Any]:
    """Return BASE with fields replaced (a dict), dropped (None) or added."""
    schema = copy.deepcopy(BASE)
    fields = {field["name"]: field for field in schema["fields"]}
    for name, change in changes.items():
        if change is None:
            del fields[name]
        else:
            fields[name] = {"name": name, **fields.get(name, {}), **change}
    schema["fields"] = list(fields.values())
    return schema


def mood(symbols: list[str], **more: Any) -> dict[str, Any]:
    return {"type": {"type": "enum", "name": "madlog.Mood", "symbols": symbols, **more}}


def test_a_schema_is_compatible_with_itself() -> None:
    assert compatible(BASE, [BASE, BASE]) == []


@pytest.mark.parametrize(
    "new",
    [
        changed(added={"type": ["null", "string"], "default": None}),
        changed(note=None),
        changed(extra=None),
        changed(id={"type": "bytes"}),  # Avro promotes both ways
        {**BASE, "name": "Thing", "namespace": "madlog"},
        {**BASE, "fields": [BASE["fields"][1], BASE["fields"][0], *BASE["fields"][2:]]},
        {**BASE, "doc": "words"},
    ],
    ids=["added default", "dropped default", "dropped map", "bytes", "namespace", "order", "doc"],
)
def test_what_both_sides_can_read_is_allowed(new: dict[str, Any]) -> None:
    assert compatible(new, [BASE]) == []


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (changed(id=None), ["Thing.id", "missing", "version 1 cannot read", "keep fields"]),
        (changed(added={"type": "string"}), ["Thing.added", "no default", "cannot read what v"]),
        (changed(id={"type": "long"}), ["Thing.id", "type is string", "long when read"]),
        (changed(count={"type": "long"}), ["Thing.count", "version 1 cannot read"]),
        (changed(count={"type": ["null", "int"]}), ["Thing.count", "null", "version 1"]),
        (changed(note={"type": "string"}), ["Thing.note", "null or string|null", "string"]),
        (changed(when={"type": "long"}), ["Thing.when", "logical type", "timestamp-micros"]),
        (changed(mood=mood(["calm", "hectic"])), ["Thing.mood", "lacks", "hectic|busy"]),
        (changed(mood=mood(["calm"])), ["Thing.mood", "lacks busy", "keep every symbol"]),
        (changed(mood=mood(["calm", "busy", "new"])), ["lacks new", "version 1 cannot read"]),
        (changed(extra={"type": {"type": "map", "values": "long"}}), ["Thing.extra{}"]),
        (changed(items={"type": {"type": "array", "items": "long"}}), ["Thing.items[]"]),
        (
            changed(hash={"type": {"type": "fixed", "name": "madlog.Hash", "size": 9}}),
            ["Thing.hash"],
        ),
        ({**BASE, "name": "madlog.Other"}, ["record is named", "keep its name"]),
    ],
    ids=[
        "removed without default",
        "added without default",
        "changed type",
        "one-way promotion",
        "made nullable",
        "made required",
        "changed logical type",
        "renamed symbol",
        "removed symbol",
        "added symbol",
        "map values",
        "array items",
        "fixed size",
        "renamed record",
    ],
)
def test_what_one_side_cannot_read_is_refused_in_words(
    new: dict[str, Any], words: list[str]
) -> None:
    if new["name"] == "madlog.Other":
        new = {**new, "fields": [f for f in new["fields"] if f["name"] != "next"]}
    told = "\n".join(compatible(new, [BASE]))
    for word in words:
        assert any(choice in told for choice in word.split("|")), told


def test_a_renamed_enum_and_a_changed_inner_record_are_refused() -> None:
    renamed = changed(
        mood={"type": {"type": "enum", "name": "madlog.Temper", "symbols": ["calm", "busy"]}},
        before=None,
    )
    assert any("enum is named" in problem for problem in compatible(renamed, [BASE]))
    item = {"type": "record", "name": "madlog.Item", "fields": [{"name": "w", "type": "long"}]}
    inner = changed(items={"type": {"type": "array", "items": item}})
    problems = compatible(inner, [BASE])
    assert any("Thing.items[].w" in problem for problem in problems)
    assert any("Thing.items[].size" in problem for problem in problems)


def test_an_enum_with_a_default_may_grow_and_shrink() -> None:
    old = changed(mood=mood(["calm", "busy"], default="calm"))
    new = changed(mood=mood(["calm", "new"], default="calm"))
    assert compatible(new, [old]) == []


def test_a_change_inside_a_nullable_record_is_named_where_it_stands() -> None:
    def holder(inner: str) -> dict[str, Any]:
        fields = [{"name": "x", "type": inner}]
        box = {"type": "record", "name": "madlog.Box", "fields": fields}
        return changed(box={"type": ["null", box], "default": None})

    problems = compatible(holder("long"), [holder("string")])
    assert len(problems) == 2
    assert all("Thing.box.x" in problem for problem in problems)


def test_every_released_version_counts_not_only_the_last() -> None:
    first = changed(added={"type": "string", "default": ""})
    second = changed()
    third = changed(added={"type": "long", "default": 0})
    assert compatible(third, [second]) == []
    assert compatible(third, [first, second])
    problems = check_released({"Thing": [first, second, third]})
    assert problems
    assert all(problem.startswith("Thing.v3: ") for problem in problems)


def test_two_released_schemas_with_equal_fingerprints_are_refused() -> None:
    twin = changed(note={"default": None, "doc": "words do not change a fingerprint"})
    problems = check_released({"Thing": [BASE, twin]})
    assert len(problems) == 1
    assert "Thing.v2 has the fingerprint of Thing.v1" in problems[0]
    logical = changed(when={"type": "long"})
    assert any("has the fingerprint of" in p for p in check_released({"Thing": [BASE, logical]}))


def test_released_schemas_of_this_program_may_grow_by_a_nullable_field() -> None:
    for versions in released_schemas().values():
        new = copy.deepcopy(versions[-1])
        new["fields"].append({"name": "later", "type": ["null", "string"], "default": None})
        assert compatible(new, versions) == []
