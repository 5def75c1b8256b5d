"""OpenAI chats as events, and back field for field."""

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madlog.analytics.exporting.openai_chat import chat_from
from madlog.analytics.importing import FORMATS, BadLine, PutBlob, SourceObject
from madlog.schemas import (
    ConversationChanged,
    Event,
    LlmCall,
    ToolCall,
    ToolResult,
    Turn,
    encode,
)

FORMAT = FORMATS["openai-chat"]
PIXEL = base64.b64encode(b"\x89PNG not really").decode()


def _events(chat: Any, put_blob: PutBlob | None = None) -> list[Event]:
    value = FORMAT.check(json.loads(json.dumps(chat)))
    name = FORMAT.conversation(value)
    events = FORMAT.events(SourceObject(value, 1, "f" * 64, name, put_blob))
    for event in events:
        encode(event)
    return events


def _said(*messages: dict[str, Any]) -> list[Event]:
    events = _events({"messages": list(messages)})
    return [event for event in events if not isinstance(event, ConversationChanged)]


def _user(content: Any = "Hi", **fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **fields}


def _assistant(content: Any = None, **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def _call(call_id: str, name: str = "search", arguments: str = "{}") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def _tool(call_id: str, content: Any = "found") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


CHATS: list[dict[str, Any]] = [
    {"messages": []},
    {"messages": [_user(), _assistant("Hello")], "metadata": {"k": "v"}, "id": "x"},
    {"messages": [{"role": "developer", "content": "Rules"}, _user("", name="Ann Lee")]},
    {"messages": [_user(None), {"role": "user"}, {"role": "assistant"}, _assistant("")]},
    {"messages": [_assistant(refusal="I can't"), _assistant("x", refusal=None)]},
    {"messages": [_assistant("", tool_calls=[_call("a"), _call("b")]), _tool("b"), _tool("a")]},
    {"messages": [_assistant(tool_calls=[]), _assistant("x", tool_calls=None, annotations=[])]},
    {
        "messages": [
            _assistant(function_call={"name": "f", "arguments": "{}"}),
            {"role": "function", "name": "f", "content": "Error"},
            _assistant(function_call={"name": "f"}),
        ],
        "functions": [{"name": "f"}],
    },
    {
        "messages": [
            _assistant(
                tool_calls=[
                    {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}},
                    {"function": {"name": "f", "arguments": {"not": "text"}}, "index": 0},
                ]
            ),
            _tool("c", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            _tool("unknown", None),
        ]
    },
    {
        "messages": [
            _user(
                [
                    {"type": "text", "text": "Look: `x` @bob #now https://a.example/b"},
                    {"type": "text", "text": ""},
                    {"type": "image_url", "image_url": {"url": "https://a.example/i.png"}},
                    {
                        "type": "image_url",
                        "image_url": {"url": f"data:image/png;base64,{PIXEL}", "detail": "low"},
                    },
                    {"type": "input_audio", "input_audio": {"data": PIXEL, "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                    {"type": "file", "file": {"file_data": "data:,x", "filename": "a\ud800"}},
                    {"type": "image_url", "image_url": "odd"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,****"}},
                    {"type": "new-thing", "x": [1]},
                    {"type": ["odd"]},
                    "odd",
                ]
            ),
            _assistant([{"type": "refusal", "refusal": "No"}]),
            _assistant([]),
        ]
    },
    {
        "messages": [_user(), _assistant("a", name="agent"), _assistant("b", name="B/2 \u0085")],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_definitions": 1,
        "": {"n": 1.0, "m": 1, "t": True},
        "created": 1_700_000_000,
    },
    {"messages": [_user("\ud83d \ud800\udc00", name="\udfff", x="\ud800")], "tools": "odd"},
]


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_comes_back_field_for_field(chat: dict[str, Any]) -> None:
    back = chat_from(_events(chat))
    assert json.dumps(back, sort_keys=True) == json.dumps(chat, sort_keys=True)


@pytest.mark.parametrize("chat", CHATS)
def test_a_chat_comes_back_when_its_data_went_to_the_blob_store(chat: dict[str, Any]) -> None:
    blobs: dict[str, bytes] = {}

    def put(data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        blobs[sha256] = data
        return sha256

    events = _events(chat, put)
    back = chat_from(events, blobs.__getitem__)
    assert json.dumps(back, sort_keys=True) == json.dumps(chat, sort_keys=True)
    assert all(PIXEL.encode() not in encode(event) for event in events)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\x00")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=6,
)
_text = st.text(st.characters(exclude_characters="\x00", exclude_categories=()), max_size=40)
_contents = (
    _text
    | st.none()
    | st.lists(
        st.builds(lambda text: {"type": "text", "text": text}, _text)
        | st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, _text)
        | st.builds(lambda kind, rest: {"type": kind, "file": rest}, _text, _json)
        | _json,
        max_size=3,
    )
)
_calls = st.lists(
    st.builds(
        lambda call_id, name, arguments, rest: {
            **rest,
            "id": call_id,
            "function": {"name": name, "arguments": arguments},
        },
        st.sampled_from(["call_1", "call_2", "", None]),
        _text,
        _text | _json,
        st.dictionaries(st.sampled_from(["type", "index", "x"]), _json),
    ),
    max_size=3,
)


@st.composite
def _messages(draw: st.DrawFn) -> dict[str, Any]:
    roles = ["system", "developer", "user", "assistant", "tool", "function"]
    message: dict[str, Any] = {"role": draw(st.sampled_from(roles))}
    optional = {
        "content": _contents,
        "name": _text | _json,
        "tool_call_id": st.sampled_from(["call_1", "call_2", None, 3]),
        "refusal": _text | _json,
        "tool_calls": _calls,
        "usage": st.just({"prompt_tokens": 3}) | _json,
        "audio": _json,
    }
    for field, values in optional.items():
        if draw(st.booleans()):
            message[field] = draw(values)
    if message["role"] == "assistant" and not draw(st.integers(0, 4)):
        message["function_call"] = {"name": draw(_text), "arguments": draw(_text | _json)}
    return message


@given(
    st.lists(_messages(), max_size=6),
    st.dictionaries(
        _text | st.sampled_from(["tools", "metadata", "usage", "created", "model"]), _json
    ),
)
def test_any_chat_comes_back_field_for_field(
    messages: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    chat = {**fields, "messages": messages}
    back = chat_from(_events(chat))
    assert json.dumps(back, sort_keys=True) == json.dumps(chat, sort_keys=True)


def test_parallel_calls_are_answered_by_id_and_equal_ids_in_order() -> None:
    calls = [_call("x", "one"), _call("y", "two"), _call("x", "three")]
    events = _said(_assistant(tool_calls=calls), _tool("y"), _tool("x"), _tool("x"), _tool("x"))
    one, two, three = (event for event in events if isinstance(event, ToolCall))
    found = [event.call_id for event in events if isinstance(event, ToolResult)]
    assert found == [two.event_id, one.event_id, three.event_id, None]
    assert [event.action for event in events if isinstance(event, ToolResult)] == [
        "two",
        "one",
        "three",
        None,
    ]


def test_names_outside_the_pattern_are_normalised_and_kept() -> None:
    user, agent = _said(_user("x", name="Ann Lee"), _assistant("y", name="7 of 9"))
    assert (user.sender.name, user.extra["original_name"]) == ("ann-lee", "Ann Lee")
    assert (agent.sender.name, agent.extra["original_name"]) == ("agent-7-of-9", "7 of 9")
    assert isinstance(user, Turn)
    assert isinstance(agent, Turn)
    assert (user.recipients, agent.recipients) == (("agent-7-of-9",), ("ann-lee",))


def test_recipients_are_the_next_to_speak() -> None:
    events = _said(_user(), _assistant("a", name="a"), _user(), _assistant("b", name="b"), _user())
    assert [event.recipients for event in events if isinstance(event, Turn)] == [
        ("a",),
        ("user",),
        ("b",),
        ("user",),
        ("b",),
    ]


def test_a_system_prompt_is_a_turn_to_the_agent() -> None:
    turn = _said({"role": "developer", "content": "Rules"})[0]
    assert isinstance(turn, Turn)
    assert (turn.sender.name, turn.sender.kind, turn.recipients) == (
        "system",
        "system",
        ("agent",),
    )


def test_data_is_held_by_reference() -> None:
    turn = _events(CHATS[9])[3]
    assert isinstance(turn, Turn)
    image = next(part for part in turn.parts if part.media_type == "image/png")
    assert image.content_class == "fixed"
    assert image.sha256 == hashlib.sha256(base64.b64decode(PIXEL)).hexdigest()
    assert image.size == len(base64.b64decode(PIXEL))
    assert turn.mentions == ("bob",)


def test_declared_tools_are_the_registry() -> None:
    created = _events(CHATS[10])[0]
    assert isinstance(created, ConversationChanged)
    assert json.loads(created.metadata["tools"]) == ["f"]
    assert json.loads(created.metadata["tool_definitions"]) == CHATS[10]["tools"]
    undeclared = _events(CHATS[1])[0]
    assert isinstance(undeclared, ConversationChanged)
    assert "tools" not in undeclared.metadata


def test_usage_becomes_a_call_that_names_what_was_sent() -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "cost": 0.25}
    events = _events(
        {
            "messages": [
                _user(),
                _assistant("a", usage={"prompt_tokens": 1}),
                _user(),
                _assistant(),
            ],
            "usage": usage,
            "model": "gpt-x",
            "temperature": 0.5,
        }
    )
    turns = [event for event in events if isinstance(event, Turn)]
    first, last = (event for event in events if isinstance(event, LlmCall))
    assert (first.tokens_in, first.tokens_out, first.cost_usd) == (1, None, None)
    assert first.messages == (turns[0].event_id,)
    assert (last.tokens_in, last.tokens_out, last.cost_usd) == (11, 5, 0.25)
    assert last.messages == tuple(turn.event_id for turn in turns[:3])
    assert last.answer_id == turns[3].event_id
    assert (last.model, last.provider, last.latency_ms) == ("gpt-x", None, None)
    assert last.parameters == {"temperature": "0.5"}


def test_without_usage_there_is_no_call() -> None:
    assert not [event for event in _events(CHATS[1]) if isinstance(event, LlmCall)]


def test_the_source_s_time_is_taken() -> None:
    events = _events({"messages": [_user()], "created": 1_700_000_000})
    assert [event.occurred_at - 1_700_000_000_000_000 for event in events] == [0, 1, 2, 3]
    assert {event.time_source for event in events} == {"imported"}


@pytest.mark.parametrize("chat", [[], {}, {"messages": 1}, [_user()], None])
def test_another_shape_is_refused(chat: Any) -> None:
    with pytest.raises(BadLine):
        FORMAT.check(chat)
