"""What an event is: one frozen model a kind, each mirrored by one Avro record in avro/.

Every event carries the envelope (the fields of `Event`); the fields below it are its payload.
Times are µs since 1970, UTC. Events refer to events by event_id, never by offset.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = (
    "EVENT_KINDS",
    "NAME_PATTERN",
    "AuditEntry",
    "Candidate",
    "CheckpointSigned",
    "Control",
    "ConversationChanged",
    "DeadLetter",
    "Decision",
    "Delivery",
    "Event",
    "LakeFile",
    "LlmCall",
    "ModelPublished",
    "Outcome",
    "Part",
    "ProcessStep",
    "RangeArchived",
    "SchemaRegistered",
    "Sender",
    "SenderKind",
    "Source",
    "TimerFired",
    "ToolCall",
    "ToolResult",
    "Turn",
    "Unreadable",
)

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
EventId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
]
ConversationId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Long = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]
SenderKind = Literal["mad", "emad", "human", "gateway", "import", "system"]


class _Frozen(BaseModel):
    # extra="allow": fields that a newer program wrote survive a round trip through this one.
    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class Sender(_Frozen):
    """Who wrote the event; until identities come, a claim."""

    name: Name
    kind: SenderKind
    version: str | None = None


class Source(_Frozen):
    """Where an imported event stood: format, SHA-256 of the file, line number from 1."""

    format: Name
    sha256: str
    line: Long


class Event(_Frozen):
    """The envelope, on every event."""

    kind: ClassVar[str] = "Event"

    event_id: EventId
    conversation_id: ConversationId
    correlation_id: str | None = None
    causation_id: EventId | None = None
    seen: EventId | None = None
    handler_step: Long | None = None
    sender: Sender
    principal: str = "none"
    occurred_at: Long
    time_source: Literal["observed", "imported", "synthetic"] = "observed"
    idempotency_key: str | None = None
    source: Source | None = None
    subject: str | None = None
    key_id: str | None = None
    cipher: str = "none"
    extra: dict[str, str] = Field(default_factory=dict)


class Part(_Frozen):
    """One piece of a turn: something to run exactly, data by reference, or natural language."""

    content_class: Literal["deterministic", "fixed", "prose"]
    text: Text | None = None
    # The command's prefix or the code block's language; None for plain commands and prose.
    language: str | None = None
    uri: str | None = None
    sha256: str | None = None
    size: Long | None = None
    media_type: str | None = None


class Turn(Event):
    """One contribution by one participant to one conversation."""

    kind: ClassVar[str] = "Turn"

    recipients: tuple[Name, ...] = ()
    mentions: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    intent: Literal["INITIATE", "REQUEST", "RESPONSE", "TERMINATE", "ERROR"] | None = None
    parts: tuple[Part, ...] = ()

    @property
    def text(self) -> str:
        """The turn as its sender typed it: the texts of its parts, joined as they stood."""
        return "".join(part.text or "" for part in self.parts)


class ConversationChanged(Event):
    """A conversation was created, joined, left, archived or rehydrated."""

    kind: ClassVar[str] = "ConversationChanged"

    change: Literal["created", "joined", "left", "archived", "rehydrated"]
    participant: Name | None = None
    participant_kind: SenderKind | None = None
    title: Text | None = None
    # Free facts about the conversation, values are JSON text; `tools` is the action registry of
    # an imported conversation as a JSON array of names.
    metadata: dict[str, str] = Field(default_factory=dict)


class ToolCall(Event):
    """An agent asked a tool to act; `arguments` is JSON text as the agent wrote it."""

    kind: ClassVar[str] = "ToolCall"

    action: str
    arguments: Text
    preconditions: tuple[str, ...] = ()
    idempotent: bool | None = None
    source_call_id: str | None = None


class ToolResult(Event):
    """What a tool answered; names its call by event_id because real logs repeat call ids."""

    kind: ClassVar[str] = "ToolResult"

    call_id: EventId | None = None
    action: str | None = None
    ok: bool
    result: Text | None = None
    error: Text | None = None
    duration_ms: float | None = None
    source_call_id: str | None = None


class Candidate(_Frozen):
    """A route that was considered, with its score 0..1."""

    route: str
    score: float


class Decision(Event):
    """Which tier settled a turn for one recipient, and why."""

    kind: ClassVar[str] = "Decision"

    turn_id: EventId
    recipient: Name
    mode: Literal["live", "shadow", "retrospective"]
    tier: Literal["dtr", "lppm", "imperator"]
    route: str
    confidence: Ratio
    max_error: Ratio
    # Shadow of the features the router saw: integers (flags are 0 or 1) and category names.
    features: dict[str, Long | str] = Field(default_factory=dict)
    candidates: tuple[Candidate, ...] = ()
    model_id: EventId
    model_version: str
    control_id: EventId | None = None
    reason: str
    propensity: Ratio
    audited: bool
    # JSON text; an action counts as settled only with its arguments.
    arguments: Text | None = None
    # Why it went up to the language model, None where a cheaper tier settled it.
    escalation: Name | None = None


class LlmCall(Event):
    """One call of a language model; unknown is None, never 0."""

    kind: ClassVar[str] = "LlmCall"

    provider: str | None = None
    model: str | None = None
    parameters: dict[str, str] = Field(default_factory=dict)
    # event_ids of what was sent; each message is stored once, in its own event.
    messages: tuple[EventId, ...] = ()
    answer_id: EventId | None = None
    tokens_in: Long | None = None
    tokens_out: Long | None = None
    cost_usd: float | None = None
    latency_ms: float | None = None


class Outcome(Event):
    """How a decision or a conversation ended, and who judged it."""

    kind: ClassVar[str] = "Outcome"

    mad: Name
    result: Literal["success", "failure", "partial", "novel"]
    quality: Ratio | None = None
    judged_by: str
    about: Literal["decision", "conversation"]
    about_id: str


class ModelPublished(Event):
    """A model version that decisions can name; `parameters` is JSON text, or a blob's address."""

    kind: ClassVar[str] = "ModelPublished"

    component: Name
    mad: str | None = None
    version: str
    parameters_sha256: str
    parameters: str | None = None
    parameters_uri: str | None = None
    # "topic/partition" -> last event_id that it was trained on.
    trained_on: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    hyper_parameters: dict[str, str] | None = None
    # The version of this program that trained it.
    code_version: str | None = None


class ProcessStep(Event):
    """One move of a process instance: a conversation is conducted through a learned process."""

    kind: ClassVar[str] = "ProcessStep"

    # Derived from the turn that started it; one instance per conversation and process.
    instance_id: EventId
    mad: Name
    process: str
    # started, step, done, blocked, resumed, paused, timed-out, compensated, completed, escalated.
    state: Name
    # The number of the step from 0, None where the move is the instance's own.
    step: Long | None = None
    action: str | None = None
    # JSON text.
    arguments: Text | None = None
    decision_id: EventId | None = None
    # When the step's time is up, in µs since 1970.
    deadline: Long | None = None
    reason: Text | None = None


class Control(Event):
    """What people, or the rules they set, tell the processors: it overrules all that is learned."""

    kind: ClassVar[str] = "Control"

    # An agent's name, a model's component, or `all`.
    target: Annotated[str, Field(min_length=1, max_length=256)]
    # stop, start, override, flag, budget, rollout, ask, approve, refuse, expire.
    command: Name
    # Of which tier, where the command is about one.
    tier: Literal["dtr", "lppm", "imperator"] | None = None
    # An override's route; where a roll-out stands: shadow, 10, 50, 100, back.
    value: Text | None = None
    # The flag's or budget's name.
    name: str | None = None
    # What is rolled out; what waits for an approval.
    about_id: EventId | None = None
    # When it ends by itself, in µs since 1970.
    expires_at: Long | None = None
    reason: Text | None = None


class TimerFired(Event):
    """A time that something was to happen by has passed."""

    kind: ClassVar[str] = "TimerFired"

    # What waited: the event_id of a ProcessStep, or of a Control that asked.
    about_id: EventId
    deadline: Long


class AuditEntry(Event):
    """Who, by its principal, asked for what, and whether it was given; written before it is."""

    kind: ClassVar[str] = "AuditEntry"

    # sql.
    action: Name
    # What was asked as it was written, its end cut off where it is long; the hash is of all of it.
    text: Text | None = None
    text_sha256: str | None = None
    # What of the log it reads, as far as that is known: names of views.
    reads: tuple[str, ...] = ()
    # answered, refused, limited, failed, interrupted.
    verdict: Name
    reason: Text | None = None
    # Of the answer.
    rows: Long | None = None
    size: Long | None = None


class CheckpointSigned(Event):
    """What the records of one partition hash to, signed: whoever alters one later cannot hide it.

    It is about positions, so it is left out of digests and of comparisons between backends.
    """

    kind: ClassVar[str] = "CheckpointSigned"

    # Of the records below `offset`, which are `size` many.
    topic: str
    partition: Long
    offset: Long
    size: Long
    root_sha256: str
    origin: str
    # The signed note (c2sp.org/tlog-checkpoint), and the public key that it can be checked with.
    note: Text
    verifier_key: str


class LakeFile(_Frozen):
    """One Parquet file of a lake: the events of one kind in one range of a partition."""

    # A kind of event, or Event for those that have no table of their own.
    table: str
    # Below the lake's root.
    path: str
    rows: Long
    size: Long
    sha256: str
    # Of the file's end, which says what is in it: looked at by each reader.
    footer_sha256: str
    # Of the names and types of its columns: files of equal ones are read together.
    columns: str


class Unreadable(_Frozen):
    """Offsets of a range that could not be read when it was archived, and why."""

    offset: Long
    offset_end: Long
    reason: Text


class RangeArchived(Event):
    """The records of a range of a partition stand in a lake's files, in place of older ranges."""

    kind: ClassVar[str] = "RangeArchived"

    # The lake's own id, and the form of its files.
    lake: str
    form: Long
    topic: str
    partition: Long
    # The first of its offsets, and the one after its last.
    offset: Long
    offset_end: Long
    files: tuple[LakeFile, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    # event_ids of the ranges whose place this one takes.
    supersedes: tuple[EventId, ...] = ()


class Delivery(Event):
    """A turn's bytes for one recipient, with the decision that sent it there."""

    kind: ClassVar[str] = "Delivery"

    recipient: Name
    decision_id: EventId
    turn_id: EventId
    turn: bytes


class SchemaRegistered(Event):
    """A schema that events of this log are written with; acknowledged before its first use."""

    kind: ClassVar[str] = "SchemaRegistered"

    subject_name: str
    version: Long
    fingerprint: str
    schema_text: str


class DeadLetter(Event):
    """A record that a processor could not process, with its bytes, error and attempts."""

    kind: ClassVar[str] = "DeadLetter"

    processor: str
    topic: str
    partition: Long
    offset: Long
    record_key: bytes
    record_value: bytes
    record_headers: dict[str, bytes] = Field(default_factory=dict)
    error_type: str
    error: str
    attempts: Long


EVENT_KINDS: dict[str, type[Event]] = {
    model.kind: model
    for model in (
        Turn,
        ConversationChanged,
        ToolCall,
        ToolResult,
        Decision,
        LlmCall,
        Outcome,
        ModelPublished,
        ProcessStep,
        Control,
        TimerFired,
        AuditEntry,
        CheckpointSigned,
        RangeArchived,
        Delivery,
        SchemaRegistered,
        DeadLetter,
    )
}
