"""The registry file: the live agents, what they may do, on what terms; JSON or TOML.

People write it, and nothing that is learned can change it. docs/guards.md has an example.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from madlog.processors.acting.budgets import Budget, budget_of
from madlog.processors.acting.errors import InvalidRegistry
from madlog.processors.acting.guards import Terms
from madlog.processors.acting.rules import parse_rule
from madlog.processors.errors import ProcessorError
from madlog.processors.ports import Action, Agent, AgentVersion, Registry, Risk
from madlog.schemas import NAME_PATTERN

__all__ = ("RegistryFile", "parse_registry", "read_registry")

_SIZE_MAX = 4 << 20
_ACTION_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]{0,127}$"
ActionName = Annotated[str, Field(pattern=_ACTION_PATTERN)]


class _Strict(BaseModel):
    # Strict, because in a list of what may run a typing mistake must not mean something else.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Action(_Strict):
    name: ActionName
    risk: Risk = "low"
    preconditions: list[str] = []
    compensation: ActionName | None = None
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    idempotent: bool = False


class _Agent(_Strict):
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    kind: Literal["mad", "emad"] = "mad"
    version: AgentVersion = "V3"
    actions: list[_Action] = []
    budgets: list[dict[str, Any]] = []


class _File(_Strict):
    approval_timeout_s: Annotated[int, Field(ge=1, le=31 * 86_400)] = 3_600
    stale_after_s: Annotated[int, Field(ge=1, le=31 * 86_400)] = 86_400
    agents: list[_Agent] = []


@dataclass(frozen=True, slots=True)
class RegistryFile:
    """What a registry file says: who the agents are, and the terms of their guards."""

    registry: Registry
    terms: Terms


def read_registry(path: Path) -> RegistryFile:
    """Return what a file says; raises InvalidRegistry."""
    try:
        if path.stat().st_size > _SIZE_MAX:
            raise InvalidRegistry(
                f"{path} is over {_SIZE_MAX >> 20} MiB: that is no list of agents"
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidRegistry(
            f"{path}: {error.strerror}: MADLOG_AGENTS names the file of agents"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRegistry(
            f"{path} is no UTF-8 at byte {error.start}: save it as such"
        ) from error
    return parse_registry(text, str(path), toml=path.suffix.lower() == ".toml")


def parse_registry(text: str, where: str = "the registry", *, toml: bool = False) -> RegistryFile:
    """Return what a text says; `where` names it in errors; raises InvalidRegistry."""
    try:
        raw = tomllib.loads(text) if toml else json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "TOML" if toml else "JSON"
        raise InvalidRegistry(f"{where} is no {kind}: {error}") from error
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise InvalidRegistry(f"{where}: {_first(error, raw)}") from error
    if file.approval_timeout_s > file.stale_after_s:
        raise InvalidRegistry(
            f"{where}: approval_timeout_s is longer than stale_after_s: what is approved late "
            "would be refused as stale"
        )
    return _checked(file, where)


def _checked(file: _File, where: str) -> RegistryFile:
    names = [agent.name for agent in file.agents]
    if (twice := _twice(names)) is not None:
        raise InvalidRegistry(f"{where}: the agent {twice} is there twice: join the two")
    known = {action.name for agent in file.agents for action in agent.actions}
    budgets: dict[str, Mapping[str, Budget]] = {}
    agents = []
    for agent in file.agents:
        here = f"{where}: agent {agent.name}"
        own = [action.name for action in agent.actions]
        if (twice := _twice(own)) is not None:
            raise InvalidRegistry(f"{here}: the action {twice} is there twice: join the two")
        for action in agent.actions:
            _check_action(action, own, known, here)
        budgets[agent.name] = _budgets(agent, here)
        contracts = {
            one.name: Action(
                one.name,
                one.risk,
                tuple(one.preconditions),
                one.compensation,
                one.timeout_s,
                one.idempotent,
            )
            for one in agent.actions
        }
        agents.append(Agent(agent.name, agent.kind, agent.version, frozenset(own), contracts))
    return RegistryFile(
        Registry(agents), Terms(file.approval_timeout_s, file.stale_after_s, budgets)
    )


def _check_action(action: _Action, own: list[str], known: set[str], where: str) -> None:
    here = f"{where}, action {action.name}"
    if action.compensation is not None and action.compensation not in own:
        raise InvalidRegistry(
            f"{here}: its compensation {action.compensation} is no action of this agent"
        )
    for text in action.preconditions:
        try:
            rule = parse_rule(text)
        except ProcessorError as error:
            raise InvalidRegistry(f"{here}: {error}") from error
        if rule.action is not None and rule.action not in known:
            raise InvalidRegistry(
                f"{here}: {text!r} names {rule.action}, which is no action of any agent here"
            )


def _budgets(agent: _Agent, where: str) -> dict[str, Budget]:
    found: dict[str, Budget] = {}
    for number, given in enumerate(agent.budgets):
        value = dict(given)
        name = value.pop("name", None)
        if not isinstance(name, str) or not name or name in found:
            raise InvalidRegistry(f"{where}: budget {number} needs a name of its own")
        try:
            found[name] = budget_of(name, value)
        except ProcessorError as error:
            raise InvalidRegistry(f"{where}: {error}") from error
    return found


def _twice(names: list[str]) -> str | None:
    return next((name for number, name in enumerate(names) if name in names[:number]), None)


def _first(error: ValidationError, raw: Any) -> str:
    """Say the first mistake with the names of where it is, not the numbers."""
    first = error.errors()[0]
    where, at = [], raw
    for step in first["loc"]:
        try:
            at = at[step]
        except (KeyError, IndexError, TypeError):
            at = None
        name = at.get("name") if isinstance(at, dict) else None
        where.append(str(name) if isinstance(step, int) and isinstance(name, str) else str(step))
    said = str(first["msg"])
    if first["type"] == "extra_forbidden":
        said = "there is no such field"
    given = (
        "" if first["type"] in ("missing", "extra_forbidden") else f", not {first['input']!r:.60}"
    )
    return f"{'.'.join(where) or 'the whole'}: {said}{given}"
