"""The office that tools work on: its tables, its clock, and the failures in store for its tools."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Day: TypeAlias = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
Category: TypeAlias = Literal["chair", "lamp", "desk", "stationery"]
Status: TypeAlias = Literal["open", "closed"]
FaultKind: TypeAlias = Literal["no_answer", "lost_answer", "rate_limit", "stale_id"]
"""``no_answer``: a time-out, and nothing was done. ``lost_answer``: the same, but it was done.
``rate_limit``: nothing works until some time has passed. ``stale_id``: the record has a new id."""


class Row(BaseModel):
    """A record of a table; ``id`` is what tools call it by."""

    model_config = ConfigDict(extra="forbid")

    id: str


class Event(Row):
    """``start`` is a full hour, ``hours`` its length."""

    title: str
    day: Day
    start: int
    hours: int


class Product(Row):
    """``price`` is for one, ``stock`` how many there are."""

    name: str
    category: Category
    price: int
    stock: int


class Order(Row):
    """``product`` is the product's name, which never changes."""

    product: str
    quantity: int


class Ticket(Row):
    """A fault that somebody reported; ``assignee`` is empty for nobody."""

    topic: str
    opened_by: str
    days_open: int
    assignee: str
    status: Status


class Fault(BaseModel):
    """What goes wrong in call number ``call`` (from 1) of a tool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tool: str
    call: int
    kind: FaultKind


TABLES = ("events", "products", "orders", "tickets")


class State(BaseModel):
    """All that changes in an episode. ``clock`` counts seconds; no tool but ``wait`` works before
    ``closed_until``. ``calls`` counts those of each tool, and ``met`` has the faults that came up.
    """

    model_config = ConfigDict(extra="forbid")

    events: list[Event] = []
    products: list[Product] = []
    orders: list[Order] = []
    tickets: list[Ticket] = []
    issued: int = 0
    clock: int = 0
    closed_until: int = 0
    calls: dict[str, int] = {}
    faults: tuple[Fault, ...] = ()
    met: list[Fault] = []

    @property
    def rows(self) -> list[Row]:
        """The records of all tables."""
        return [*self.events, *self.products, *self.orders, *self.tickets]

    def new_id(self) -> str:
        """An id that no record has had."""
        self.issued += 1
        return f"R{self.issued}"

    def content(self) -> dict[str, list[dict[str, object]]]:
        """The tables without the ids: all that a task is about."""
        ids = {table: {"__all__": {"id"}} for table in TABLES}
        return self.model_dump(include=set(TABLES), exclude=ids)
