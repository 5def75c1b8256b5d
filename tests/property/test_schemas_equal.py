"""The law that holds models and Avro records equal: what the model allows, the record carries."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from madlog.schemas import EVENT_KINDS, NAME_PATTERN, Event, Schemas, encode, new_event_id
from madlog.schemas.events import EventId, Long, Name, Ratio, Text

SCHEMAS = Schemas()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LONGS = st.integers(-(2**63), 2**63 - 1)
SPECIAL: dict[Any, st.SearchStrategy[Any]] = {
    Name: st.from_regex(NAME_PATTERN, fullmatch=True),
    EventId: st.builds(new_event_id, st.integers(0, 2**58), st.binary(min_size=10, max_size=10)),
    Text: TEXTS.map(lambda text: text.replace("\x00", "")),
    Long: LONGS,
    Ratio: st.floats(0, 1),
    str: TEXTS,
    int: LONGS,
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    types.NoneType: st.none(),
}
IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=256)


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Return a strategy of the values that an annotation of a model allows."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated or annotation in SPECIAL:
        return SPECIAL[annotation]
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of([values(branch) for branch in args])
    if origin is tuple:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=3)
    assert issubclass(annotation, BaseModel)
    return models(annotation)


def models(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return a strategy of valid instances of a model, optional fields left out now and then."""
    hints = {name: model.__annotations__.get(name) for name in model.model_fields}
    if issubclass(model, Event):
        hints |= {name: Event.__annotations__[name] for name in Event.model_fields}
    fields = {
        name: IDS if name in ("conversation_id", "target") else values(hints[name])
        for name in model.model_fields
    }
    required = {name for name, info in model.model_fields.items() if info.is_required()}
    return st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in required},
        optional={name: fields[name] for name in fields if name not in required},
    ).map(model.model_validate)


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_every_event_that_the_model_allows_comes_back_equal(kind: str) -> None:
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(models(EVENT_KINDS[kind]))
    def law(event: Event) -> None:
        value = encode(event)
        decoded = SCHEMAS.decode(value)
        assert decoded == event
        assert type(decoded) is EVENT_KINDS[kind]
        assert encode(decoded) == value
        assert EVENT_KINDS[kind].model_validate(decoded.model_dump()) == event

    law()
