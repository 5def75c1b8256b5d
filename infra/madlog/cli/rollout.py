"""rollout: how each model went live, and what a person says of one."""

from typing import TYPE_CHECKING, Annotated

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
    from madlog.topics import EventLog, LogEvent

__all__ = ("register",)

_STAGES = ("shadow", "10", "50", "100")
_BACK = "back"

rollout_app = typer.Typer(help="how models go live: list, step, back", no_args_is_help=True)

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Its version, or its event_id: madlog rollout list.")
]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why, for those who read it.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(rollout_app, name="rollout")


@rollout_app.command("list", short_help="each step of each model, with its figures")
def rollout_list(ctx: typer.Context, log: LogOption = None, as_json: JsonOption = False) -> None:
    """List the steps of each model: who said them, why, and how both sides did at each stage.

    Example: madlog rollout list
    """
    run(_list(state_of(ctx, log, as_json)))


@rollout_app.command("step", short_help="let a model decide beside, or its share")
def rollout_step(
    ctx: typer.Context,
    model: ModelArgument,
    stage: Annotated[str, typer.Argument(metavar="shadow|10|50|100", help="Where it is to stand.")],
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a model stands from now on: beside what is served, or with a share in percent.

    Any stage may be said; `madlog worker` goes on from there, and takes it back if it does harm.

    Example: madlog rollout step lived-320 shadow
    """
    if stage not in _STAGES:
        raise fail(f"{stage[:60]!r} is no stage: {', '.join(_STAGES)}; to end it, use back", 2)
    run(_say(state_of(ctx, log, as_json), model, stage, reason))


@rollout_app.command("back", short_help="take a model back")
def rollout_back(
    ctx: typer.Context,
    model: ModelArgument,
    reason: ReasonOption = None,
    log: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a model back: what was served before it decides again, and no worker rolls it out again.

    Example: madlog rollout back lived-320 --reason "it refunds too much"
    """
    run(_say(state_of(ctx, log, as_json), model, _BACK, reason))


async def _list(state: State) -> None:
    from madlog.analytics.output import json_rows
    from madlog.analytics.questions import ask
    from madlog.wiring import opened

    async with opened(state.url, state.settings, create=False) as log:
        result = await ask(log, "rollouts")
    columns = tuple(result.columns)
    print_rows(state, list(json_rows(result)), columns, empty="no model was rolled out yet")


async def _say(state: State, named: str, stage: str, reason: str | None) -> None:
    from madlog.processors.rollout.refusal import read_model
    from madlog.wiring import open_blobs, open_registry, opened

    settings = state.settings
    async with opened(state.url, settings, create=False) as log:
        model = await _model(log, named)
        if stage != _BACK:
            blobs, agents = open_blobs(state.url, settings), open_registry(settings).registry
            # Refused here, where somebody reads why, rather than passed over by each router.
            read_model(model, blobs.get, agents)
        component = model.fields["component"]
        now = log.log.clock.now_us()
        event = order(
            now, "rollout", component, value=stage, about_id=model.event_id, reason=reason
        )
        await log.append([event])
    print_object(
        state,
        {
            "event_id": event.event_id,
            "model": model.fields["version"],
            "stage": stage,
            "model_id": model.event_id,
            "reason": reason,
            "by": event.sender.name,
        },
    )


async def _model(log: "EventLog", named: str) -> "LogEvent":
    """Return the one model that a version or an id names, which live turns may be decided by."""
    from madlog.processors.serving import ROUTING

    found, others = [], 0
    async for events in log.read_topics(["mad.models"]):
        for event in events:
            if named in (event.event_id, event.fields["version"]):
                if event.fields["component"] == ROUTING:
                    found.append(event)
                else:
                    others += 1
    if not found and others:
        raise fail(f"{named[:60]!r} is no model of the component {ROUTING}: none else goes live", 2)
    if not found:
        raise fail(f"there is no model {named[:60]!r}: madlog ask learned lists them", 2)
    if len(found) > 1:
        for event in found:
            note(f"madlog: {event.event_id} is of version {named[:60]}")
        raise fail(f"{len(found)} models are of version {named[:60]!r}: name one by its id", 2)
    return found[0]
