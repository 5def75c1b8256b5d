"""Who is in the refund team: six agents with their actions, and two people."""

from typing import Literal, NamedTuple

from madlog.schemas import SenderKind

__all__ = ("AGENTS", "PEOPLE", "TEAM", "Member", "Role")

Role = Literal[
    "front-desk",
    "orders",
    "payments",
    "policy",
    "knowledge",
    "supervisor",
    "maria",
    "jonas",
]


class Member(NamedTuple):
    """One of the team: its kind, what it does, and the actions that it may run."""

    name: Role
    kind: SenderKind
    does: str
    actions: tuple[str, ...] = ()

    @property
    def sender(self) -> dict[str, str | None]:
        """The member as the sender of an event."""
        version = "1.0" if self.kind == "mad" else None
        return {"name": self.name, "kind": self.kind, "version": version}


AGENTS = (
    Member("front-desk", "mad", "takes requests in and hands them on", ("close_case",)),
    Member("orders", "mad", "knows every order", ("get_order", "list_orders")),
    Member("payments", "mad", "moves money", ("refund", "get_payment")),
    Member("policy", "mad", "says what the terms allow", ("check_policy",)),
    Member("knowledge", "mad", "finds and quotes documents", ("search_articles",)),
    Member("supervisor", "mad", "approves and takes over", ("approve", "assign")),
)
PEOPLE = (
    Member("maria", "human", "the shop's clerk, who speaks with customers"),
    Member("jonas", "human", "the team's lead, who watches costs and health"),
)
TEAM: dict[str, Member] = {member.name: member for member in (*AGENTS, *PEOPLE)}
