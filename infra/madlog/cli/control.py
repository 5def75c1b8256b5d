"""control: stop, overrule, limit and approve what the agents do; list what holds now."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from madlog.cli._context import (
    JsonOption,
    LogOption,
    State,
    fail,
    note,
    print_object,
    print_rows,
    run,
    state_of,
)
from madlog.cli._ordering import order

if TYPE_CHECKING:
    from madlog.processors.acting.orders import Orders
    from madlog.schemas import Control

__all__ = ("register",)

_ALL = "all"
_TIERS = ("dtr", "lppm", "imperator")
_UNIT_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_DURATION_S_MAX = 366 * 86_400
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FLAG = re.compile(r"[a-z][a-z0-9-]{0,62}(:[A-Za-z_][A-Za-z0-9_.-]{0,127})?")
_SECOND_US = 1_000_000

control_app = typer.Typer(help="stop, overrule, approve: what people order", no_args_is_help=True)

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT|all", help="An agent, or all.")]
TierOption = Annotated[
    str | None, typer.Option("--tier", metavar="dtr|lppm|imperator", help="This tier only.")
]
ForOption = Annotated[
    str | None, typer.Option("--for", metavar="10m", help="How long: 30s, 10m, 2h, 7d; else on.")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for those who read it.")]
DecisionArgument = Annotated[
    str, typer.Argument(metavar="DECISION", help="What waits: madlog control list.")
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(control_app, name="control")


@control_app.command("stop", short_help="the kill switch: nothing of it runs")
def stop(
    ctx: typer.Context,
    agent: AgentArgument,
    tier: TierOption = None,
    lasting: ForOption = None,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop an agent, one of its tiers, or all; before its next act and its next decision.

    What a stopped tier would have settled goes up to the language model; what a stopped agent
    has decided and not begun is refused.

    \b
    Examples:
      madlog control stop refunds --reason "it pays twice"
      madlog control stop all --tier lppm --for 2h
    """
    state = state_of(ctx, log, as_json)
    run(_give(state, "stop", agent, tier=_tier(tier), lasting=lasting, reason=reason))


@control_app.command("start", short_help="end a stop")
def start(
    ctx: typer.Context,
    agent: AgentArgument,
    tier: TierOption = None,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the stop of the same agent and tier.

    Example: madlog control start refunds
    """
    state = state_of(ctx, log, as_json)
    run(_give(state, "start", agent, tier=_tier(tier), reason=reason))


@control_app.command("override", short_help="a route for all that goes to an agent")
def override(
    ctx: typer.Context,
    agent: AgentArgument,
    route: Annotated[
        str | None, typer.Argument(metavar="ROUTE", help="imperator, ack, health, action:NAME.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="End the override.")] = False,
    lasting: ForOption = None,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send all that goes to an agent one way, whatever its tiers would decide.

    \b
    Examples:
      madlog control override refunds imperator --for 1d
      madlog control override refunds --clear
    """
    from madlog.processors.dtr.tree import VERB_ROUTE, is_route

    if (route is None) != clear:
        raise fail("an override names a route, or is ended by --clear", 2)
    if route is not None and (not is_route(route) or route == VERB_ROUTE):
        raise fail(
            f"{route[:60]!r} is no route: imperator, process, ack, health, or action:NAME", 2
        )
    state = state_of(ctx, log, as_json)
    run(_give(state, "override", agent, value=route, lasting=lasting, reason=reason))


@control_app.command("flag", short_help="switch a feature on or off")
def flag(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="acting, action:NAME, or a name of your own.")],
    value: Annotated[str, typer.Argument(metavar="on|off")],
    agent: Annotated[str, typer.Option("--agent", help="For this agent; else for all.")] = _ALL,
    lasting: ForOption = None,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Switch a feature on or off. `acting` off: acts wait. `action:NAME` off: it is refused.

    \b
    Examples:
      madlog control flag acting off --for 30m
      madlog control flag action:refund off --agent shop
    """
    if not _FLAG.fullmatch(name):
        raise fail(f"{name[:60]!r} is no flag: a flag is named like acting or action:NAME", 2)
    if value not in ("on", "off"):
        raise fail(f"a flag is on or off, not {value[:60]!r}", 2)
    state = state_of(ctx, log, as_json)
    run(_give(state, "flag", agent, name=name, value=value, lasting=lasting, reason=reason))


@control_app.command("budget", short_help="how much an agent may do, or spend, in a time")
def budget(
    ctx: typer.Context,
    agent: AgentArgument,
    name: Annotated[str, typer.Argument(help="The budget's name; takes the place of the file's.")],
    acts: Annotated[int | None, typer.Option("--acts", help="At most so many acts.")] = None,
    cost_usd: Annotated[float | None, typer.Option("--cost-usd", help="Or so much money.")] = None,
    window: Annotated[str, typer.Option("--window", metavar="1d", help="In such a time.")] = "1d",
    risk: Annotated[
        str | None, typer.Option("--risk", metavar="low|medium|high", help="Acts of this risk.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="End what was ordered.")] = False,
    lasting: ForOption = None,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Limit what an agent does or spends in any window of time; what is over it waits.

    \b
    Examples:
      madlog control budget refunds hourly --acts 20 --window 1h --risk high
      madlog control budget all money --cost-usd 50
      madlog control budget refunds hourly --clear
    """
    from madlog.processors.acting import budget_of

    if not _NAME.fullmatch(name):
        raise fail(f"{name[:60]!r} is no name: small letters, digits and hyphens", 2)
    value = None
    if clear:
        if (acts, cost_usd, risk) != (None, None, None):
            raise fail("--clear ends the budget, so it has no limits", 2)
    else:
        given = {"acts": acts, "cost_usd": cost_usd, "risk": risk}
        limits = {key: one for key, one in given.items() if one is not None}
        value = budget_of(name, {**limits, "window_s": _seconds(window, "--window")}).json()
    state = state_of(ctx, log, as_json)
    run(_give(state, "budget", agent, name=name, value=value, lasting=lasting, reason=reason))


@control_app.command("approve", short_help="let an act run that waits for it")
def approve(
    ctx: typer.Context,
    decision: DecisionArgument,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve an act of high risk; its preconditions are checked again before it runs.

    Example: madlog control approve 0193a000-0000-7000-8000-000000000001
    """
    run(_answer(state_of(ctx, log, as_json), "approve", decision, reason))


@control_app.command("refuse", short_help="do not let an act run")
def refuse(
    ctx: typer.Context,
    decision: DecisionArgument,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse an act that waits for an approval; the turn goes up to the language model.

    Example: madlog control refuse 0193a000-0000-7000-8000-000000000001 --reason "ask ann first"
    """
    run(_answer(state_of(ctx, log, as_json), "refuse", decision, reason))


@control_app.command("list", short_help="what holds now, and what waits for an approval")
def control_list(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List what people have ordered and holds now, and the acts that wait for an approval.

    Example: madlog control list
    """
    run(_list(state_of(ctx, log, as_json)))


def _tier(tier: str | None) -> str | None:
    if tier is not None and tier not in _TIERS:
        raise fail(f"there is no tier {tier[:60]!r}: {', '.join(_TIERS)}", 2)
    return tier


def _seconds(text: str, option: str) -> int:
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    if not 0 < seconds <= _DURATION_S_MAX:
        raise fail(f"{option} {text[:60]!r} is no time: write 30s, 10m, 2h or 7d", 2)
    return seconds


async def _give(
    state: State, command: str, target: str, *, lasting: str | None = None, **fields: Any
) -> None:
    """Append one order and print it."""
    from madlog.wiring import open_registry, opened

    if target != _ALL and not _NAME.fullmatch(target):
        raise fail(f"{target[:60]!r} is no name of an agent: small letters, digits, hyphens", 2)
    seconds = None if lasting is None else _seconds(lasting, "--for")
    agents = open_registry(state.settings).registry
    if agents and target not in (_ALL, *agents):
        # It is given all the same: agents that nobody registered are routed too.
        note(f"madlog: {target} is none of the registered agents: {', '.join(sorted(agents))}")
    async with opened(state.url, state.settings, create=False) as log:
        now = log.log.clock.now_us()
        until = None if seconds is None else now + seconds * _SECOND_US
        event = order(now, command, target, expires_at=until, **fields)
        await log.append([event])
    _print(state, event)


async def _answer(state: State, command: str, decision: str, reason: str | None) -> None:
    from madlog.processors.acting.answering import answerable, standing
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        now = log.log.clock.now_us()
        ask = await answerable(log, await standing(log), decision, now)
        event = order(
            now,
            command,
            ask.proposal.agent,
            conversation_id=ask.proposal.conversation_id,
            causation_id=ask.event_id,
            about_id=decision,
            reason=reason,
        )
        await log.append([event])
    _print(state, event)


def _print(state: State, event: "Control") -> None:
    names = ("event_id", "command", "target", "tier", "name", "value", "about_id", "reason")
    shown = {name: getattr(event, name) for name in names if getattr(event, name) is not None}
    if event.expires_at is not None:
        shown["until"] = _time(event.expires_at)
    print_object(state, {**shown, "by": event.sender.name})


def _time(us: int) -> str:
    from datetime import UTC, datetime, timedelta

    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return (epoch + timedelta(microseconds=us)).isoformat(timespec="seconds")


async def _list(state: State) -> None:
    from madlog.processors.acting.answering import standing
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        orders = await standing(log)
        rows = list(_rows(orders, log.log.clock.now_us()))
    columns = ("what", "target", "says", "until", "decision")
    print_rows(state, rows, columns, empty="nothing is ordered, and nothing waits for an approval")


def _rows(orders: "Orders", now: int) -> Iterator[dict[str, Any]]:
    """Yield what holds now, what waits last."""

    def row(
        what: str, target: str, says: str, until: int | None, decision: str | None = None
    ) -> Any:
        shown = None if until is None else _time(until)
        return {"what": what, "target": target, "says": says, "until": shown, "decision": decision}

    for what, name in (("stopped", "stopped"), ("override", "overrides"), ("flag", "flags")):
        for target, entry in sorted(orders.controls[name].items()):
            if entry["expires_at"] is None or now < entry["expires_at"]:
                yield row(what, target, entry["value"], entry["expires_at"])
    for component, rollout in sorted(orders.controls["rollouts"].items()):
        if rollout["candidate"] is not None:
            says = f"{rollout['candidate']} at {rollout['stage']}"
            yield row("rollout", component, says, None)
        elif rollout["served"]:
            yield row("rollout", component, f"{rollout['served'][-1]} serves all", None)
    for target, budget, until in orders.ordered_budgets(now):
        yield row("budget", target, f"{budget.name}: {budget}", until)
    for ask in orders.waiting(now):
        one = ask.proposal
        says = f"{one.action} {one.arguments or ''}"
        yield row("waits for approval", one.agent, says, ask.expires_at, one.act_id)
