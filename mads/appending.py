"""Turns from outside, one or a stream of them: what `madlog append` stands on.

Unless strict, a conversation is created, and sender and recipients join it, in the transaction
that appends the turn. A stream is read ahead while a batch is being made durable, so that many
turns share one sync; answers come in the order of the lines.
"""

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from madlog.mads._membership import ConversationState, Membership
from madlog.mads._rules import checked_id, checked_name, checked_text, is_name
from madlog.mads.conversation import Random, TurnMaker, joined, said_at
from madlog.mads.errors import InvalidTurn, NotAParticipant, UnknownConversation
from madlog.schemas import Event, MadlogError, Sender, SenderKind
from madlog.schemas.text import parse
from madlog.topics import (
    Clock,
    EventLog,
    IdempotencyConflict,
    Position,
    RecordTooLarge,
    system_random,
)

__all__ = ("Appended", "TurnRequest", "append_many", "append_turn")

READ_AHEAD_MAX = 1024
BATCH_TURNS_MAX = 256
_FIELDS = frozenset(
    {"conversation_id", "sender", "text", "recipients", "idempotency_key", "occurred_at"}
)


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A turn that somebody outside wants appended; kinds are for names that are new here."""

    conversation_id: str
    sender: str
    text: str
    recipients: tuple[str, ...] = ()
    idempotency_key: str | None = None
    occurred_at: int | None = None
    sender_kind: SenderKind = "human"
    recipient_kind: SenderKind = "mad"

    def checked(self) -> "TurnRequest":
        """Return this request; raises InvalidTurn, TurnTooLarge."""
        checked_id(self.conversation_id)
        checked_name(self.sender)
        checked_text(self.text)
        for name in self.recipients:
            checked_name(name)
        return self

    @classmethod
    def parse(
        cls, line: str | bytes, *, conversation_id: str | None = None, sender: str | None = None
    ) -> "TurnRequest":
        """Read one JSON line; the arguments stand in for fields it lacks. Raises InvalidTurn."""
        fields = _json_object(line)
        if unknown := sorted(fields.keys() - _FIELDS):
            raise InvalidTurn(
                f"unknown field {unknown[0][:60]!r}: a turn has {', '.join(sorted(_FIELDS))}"
            )
        recipients = fields.get("recipients") or ()
        listed = isinstance(recipients, (list, tuple))
        if not listed or not all(isinstance(name, str) for name in recipients):
            raise InvalidTurn('recipients are a list of names, for example ["payments"]')
        key = fields.get("idempotency_key")
        if key is not None and not isinstance(key, str):
            raise InvalidTurn(f"idempotency_key is a string, not {type(key).__name__}")
        return cls(
            _named(fields, "conversation_id", conversation_id),
            _named(fields, "sender", sender),
            _named(fields, "text", None),
            tuple(recipients),
            key,
            _time(fields.get("occurred_at")),
        ).checked()


def _json_object(line: str | bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(line)
    except UnicodeDecodeError as error:
        raise InvalidTurn(f"byte {error.start + 1} is not UTF-8: send UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InvalidTurn(f"this is not JSON ({error}): send one object a line") from error
    if not isinstance(fields, dict):
        raise InvalidTurn(f"this is a JSON {type(fields).__name__}: send one object a line")
    return fields


def _named(fields: Mapping[str, Any], name: str, default: str | None) -> str:
    value = fields.get(name, default)
    if value is None:
        raise InvalidTurn(f"{name} is missing: every turn has conversation_id, sender and text")
    if not isinstance(value, str):
        raise InvalidTurn(f"{name} is a string, not {type(value).__name__}")
    return value


def _time(value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        if value is not None and not 0 <= value < 1 << 62:
            raise InvalidTurn(f"occurred_at {value} is out of range: µs since 1970, or ISO 8601")
        return value
    try:
        moment = datetime.fromisoformat(str(value))
        if moment.tzinfo is not None:
            return round(moment.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        pass
    raise InvalidTurn(
        f"occurred_at {str(value)[:40]!r} is no time: µs since 1970, or ISO 8601 with its offset, "
        "for example 2026-01-31T12:00:00Z"
    )


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to one request: where its turn stands, or the error that refused it."""

    event_id: str | None = None
    position: Position | None = None
    repeated: bool = False
    error: MadlogError | None = None


class _Pending:
    """What the earlier requests of a batch will have led to."""

    def __init__(self) -> None:
        self.states: dict[str, ConversationState] = {}
        self._keys: set[tuple[str, str]] = set()

    def met(self, membership: Membership, request: TurnRequest) -> bool:
        """Say whether a request's idempotency key was met before, and remember it."""
        if request.idempotency_key is None:
            return False
        key = (request.sender, request.idempotency_key)
        known = key in self._keys or membership.met(*key)
        self._keys.add(key)
        return known


class _Appender:
    def __init__(
        self, log: EventLog, membership: Membership, clock: Clock, random: Random, strict: bool
    ) -> None:
        self._log = log
        self._membership = membership
        self._clock = clock
        self._random = random
        self._strict = strict

    async def events(self, request: TurnRequest, pending: "_Pending") -> list[Event]:
        """Return the events of a request, its turn last; raises what refuses it."""
        name = request.conversation_id
        state = pending.states.get(name) or (await self._membership.fresh(name)).copy()
        kind = state.participants.get(request.sender, request.sender_kind)
        maker = TurnMaker(
            Sender.model_validate({"name": request.sender, "kind": kind}),
            self._clock,
            self._random,
        )
        parsed = parse(request.text)
        recipients = [*request.recipients]
        for mention in parsed.mentions:
            if mention in state.participants or (not self._strict and is_name(mention)):
                recipients.append(mention)
        recipients = [to for to in dict.fromkeys(recipients) if to != request.sender]
        events: list[Event] = []
        if self._strict:
            _refuse_strangers(request, state)
        # What was said before joins nobody again, and later turns do not answer its copy.
        repeated = pending.met(self._membership, request)
        if not self._strict and not repeated:
            events = _joining(maker, request, state, kind, recipients)
        turn = maker.turn(
            name,
            parsed,
            recipients=recipients,
            state=state,
            occurred_at=request.occurred_at,
            idempotency_key=request.idempotency_key,
        )
        if not repeated:
            state.fold(turn.kind, vars(turn))
        pending.states[name] = state
        return [*events, turn]

    async def batch(self, requests: Sequence[TurnRequest | MadlogError]) -> list[Appended]:
        """Append the turns of a batch with one sync; a refused one is answered with its error."""
        answers: list[Appended | None] = []
        made: list[tuple[int, list[Event]]] = []
        pending = _Pending()
        for request in requests:
            answers.append(None)
            try:
                if isinstance(request, MadlogError):
                    raise request
                made.append((len(answers) - 1, await self.events(request.checked(), pending)))
            except MadlogError as error:
                answers[-1] = Appended(error=error)
        try:
            await self._write(made, answers)
        except (IdempotencyConflict, RecordTooLarge) as error:
            # Nothing of the batch is in the log: one of its turns was refused, not the others.
            if len(made) == 1:
                answers[made[0][0]] = Appended(error=error)
            else:
                for index, _ in made:
                    answers[index] = (await self.batch([requests[index]]))[0]
        return [answer for answer in answers if answer is not None]

    async def _write(
        self, made: list[tuple[int, list[Event]]], answers: list[Appended | None]
    ) -> None:
        events = [event for _, group in made for event in group]
        if not events:
            return
        receipts = await self._log.transact(events)
        at = -1
        for index, group in made:
            at += len(group)
            event_id, receipt = group[-1].event_id, receipts[at]
            if receipt.repeated:
                event_id = (await said_at(self._log, receipt.position)).event_id
            answers[index] = Appended(event_id, receipt.position, receipt.repeated)


def _joining(
    maker: TurnMaker,
    request: TurnRequest,
    state: ConversationState,
    kind: str,
    recipients: Sequence[str],
) -> list[Event]:
    events: list[Event] = []
    name, at = request.conversation_id, request.occurred_at
    if not state.exists:
        events.append(maker.change(name, "created", occurred_at=at))
        state.fold("ConversationChanged", vars(events[0]))
    for who in (request.sender, *recipients):
        if who not in state.participants:
            new_kind = kind if who == request.sender else request.recipient_kind
            events.append(joined(maker, name, state, checked_name(who), new_kind, at))
    return events


def _refuse_strangers(request: TurnRequest, state: ConversationState) -> None:
    name = request.conversation_id[:80]
    if not state.exists:
        raise UnknownConversation(
            f"the log holds no conversation {name!r}: create it first, or append without strict"
        )
    for who in (request.sender, *request.recipients):
        if who not in state.participants:
            raise NotAParticipant(
                f"{who} does not take part in {name!r}: let it join first, or append without strict"
            )


async def append_turn(
    log: EventLog,
    conversation_id: str,
    sender: str,
    text: str,
    recipients: Sequence[str] = (),
    strict: bool = False,
    idempotency_key: str | None = None,
    occurred_at: int | None = None,
    *,
    sender_kind: SenderKind = "human",
    recipient_kind: SenderKind = "mad",
    random: Random = system_random,
) -> Appended:
    """Append one turn, durable when this returns.

    Creates the conversation and lets sender and recipients join in the same transaction, or with
    `strict` raises UnknownConversation, NotAParticipant; raises InvalidTurn, TurnTooLarge.
    """
    request = TurnRequest(
        conversation_id,
        sender,
        text,
        tuple(recipients),
        idempotency_key,
        occurred_at,
        sender_kind,
        recipient_kind,
    ).checked()
    membership = Membership(log, only=[conversation_id], keys=True)
    appender = _Appender(log, membership, log.log.clock, random, strict)
    answer = (await appender.batch([request]))[0]
    if answer.error is not None:
        raise answer.error
    return answer


async def append_many(
    log: EventLog,
    requests: AsyncIterable[TurnRequest | MadlogError],
    *,
    strict: bool = False,
    random: Random = system_random,
) -> AsyncIterator[Appended]:
    """Append a stream of turns; yields one answer each, in order, when it is durable.

    A request that is an error (a line that could not be read) is answered with itself.
    """
    queue: asyncio.Queue[TurnRequest | MadlogError | None] = asyncio.Queue(READ_AHEAD_MAX)

    failure: list[Exception] = []

    async def read_ahead() -> None:
        try:
            async for request in requests:
                await queue.put(request)
        except Exception as error:
            failure.append(error)  # raised once what was read before it is answered
        await queue.put(None)

    reader = asyncio.create_task(read_ahead())
    appender = _Appender(log, Membership(log, keys=True), log.log.clock, random, strict)
    try:
        ended = False
        while not ended:
            batch = [await queue.get()]
            while batch[-1] is not None and len(batch) < BATCH_TURNS_MAX and not queue.empty():
                batch.append(queue.get_nowait())
            if batch[-1] is None:
                ended = True
            for answer in await appender.batch([one for one in batch if one is not None]):
                yield answer
        if failure:
            raise failure[0]
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
