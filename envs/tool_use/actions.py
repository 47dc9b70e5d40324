"""What the tools of the office do: one class each, whose fields are the arguments.

``do`` looks before it changes anything, and raises ``ToolError`` where it refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from palestra.envs.arguments import ToolError
from palestra.envs.tool_use.state import Category, Day, Event, Order, Row, State, Status, Ticket
from palestra.rl.types import Tool

R = TypeVar("R", bound=Row)

OPENS, CLOSES = 8, 18
"""Hours between which events may lie."""


class Action(BaseModel):
    """A call with arguments of the right kind; the docstring is what the policy is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: ClassVar[str]
    changes: ClassVar[bool] = True
    """Whether it can change a table."""

    def do(self, state: State) -> str:
        """Change the state; the answer. Raises ``ToolError``."""
        raise NotImplementedError


class OnRow(Action):
    """A call about one record."""

    id: str = Field(max_length=20, description="its id")


class FindEvents(Action):
    """List the events of a day."""

    tool: ClassVar[str] = "find_events"
    changes: ClassVar[bool] = False
    day: Day

    def do(self, state: State) -> str:
        return _listed(event for event in state.events if event.day == self.day)


class BookEvent(Action):
    """Put an event into the calendar, between 8:00 and 18:00; events must not overlap."""

    tool: ClassVar[str] = "book_event"
    title: str = Field(max_length=40)
    day: Day
    start: int = Field(ge=OPENS, lt=CLOSES, description="full hour")
    hours: int = Field(ge=1, le=4)

    def do(self, state: State) -> str:
        event = Event(id="", title=self.title, day=self.day, start=self.start, hours=self.hours)
        _refuse_overlap(event, state.events)
        event.id = state.new_id()
        state.events.append(event)
        return f"booked as {event.id}"


class MoveEvent(OnRow):
    """Give an event another day and hour; its length stays."""

    tool: ClassVar[str] = "move_event"
    day: Day
    start: int = Field(ge=OPENS, lt=CLOSES, description="full hour")

    def do(self, state: State) -> str:
        event = _row(state.events, self.id)
        moved = event.model_copy(update={"day": self.day, "start": self.start})
        _refuse_overlap(moved, [other for other in state.events if other is not event])
        event.day, event.start = self.day, self.start
        return "moved"


class CancelEvent(OnRow):
    """Take an event out of the calendar."""

    tool: ClassVar[str] = "cancel_event"

    def do(self, state: State) -> str:
        state.events.remove(_row(state.events, self.id))
        return "cancelled"


class FindProducts(Action):
    """List the products of a category with price and stock."""

    tool: ClassVar[str] = "find_products"
    changes: ClassVar[bool] = False
    category: Category

    def do(self, state: State) -> str:
        return _listed(p for p in state.products if p.category == self.category)


class FindOrders(Action):
    """List all orders."""

    tool: ClassVar[str] = "find_orders"
    changes: ClassVar[bool] = False

    def do(self, state: State) -> str:
        return _listed(state.orders)


class PlaceOrder(OnRow):
    """Order a product by the product's id; the stock goes down."""

    tool: ClassVar[str] = "place_order"
    quantity: int = Field(ge=1, le=100)

    def do(self, state: State) -> str:
        product = _row(state.products, self.id)
        if product.stock < self.quantity:
            raise ToolError(f"only {product.stock} in stock")
        product.stock -= self.quantity
        order = Order(id=state.new_id(), product=product.name, quantity=self.quantity)
        state.orders.append(order)
        return f"ordered as {order.id}"


class CancelOrder(OnRow):
    """Cancel an order by the order's id; the stock goes up again."""

    tool: ClassVar[str] = "cancel_order"

    def do(self, state: State) -> str:
        order = _row(state.orders, self.id)
        product = next(product for product in state.products if product.name == order.product)
        product.stock += order.quantity
        state.orders.remove(order)
        return "cancelled"


class FindTickets(Action):
    """List the tickets that are open, or those that are closed."""

    tool: ClassVar[str] = "find_tickets"
    changes: ClassVar[bool] = False
    status: Status

    def do(self, state: State) -> str:
        return _listed(ticket for ticket in state.tickets if ticket.status == self.status)


class OpenTicket(Action):
    """Report a fault in somebody's name."""

    tool: ClassVar[str] = "open_ticket"
    topic: str = Field(max_length=40)
    opened_by: str = Field(max_length=40)

    def do(self, state: State) -> str:
        ticket = Ticket(
            id=state.new_id(),
            topic=self.topic,
            opened_by=self.opened_by,
            days_open=0,
            assignee="",
            status="open",
        )
        state.tickets.append(ticket)
        return f"opened as {ticket.id}"


class AssignTicket(OnRow):
    """Say who takes care of a ticket that is open."""

    tool: ClassVar[str] = "assign_ticket"
    assignee: str = Field(max_length=40)

    def do(self, state: State) -> str:
        _open_ticket(state, self.id).assignee = self.assignee
        return "assigned"


class CloseTicket(OnRow):
    """Close a ticket that is open; it cannot be opened again."""

    tool: ClassVar[str] = "close_ticket"

    def do(self, state: State) -> str:
        _open_ticket(state, self.id).status = "closed"
        return "closed"


class Wait(Action):
    """Let some time pass."""

    tool: ClassVar[str] = "wait"
    changes: ClassVar[bool] = False
    seconds: int = Field(ge=1, le=3600)

    def do(self, state: State) -> str:
        state.clock += self.seconds
        return f"{self.seconds} seconds have passed"


ACTIONS: dict[str, type[Action]] = {
    action.tool: action
    for action in (
        *(FindEvents, BookEvent, MoveEvent, CancelEvent),
        *(FindProducts, FindOrders, PlaceOrder, CancelOrder),
        *(FindTickets, OpenTicket, AssignTicket, CloseTicket),
        Wait,
    )
}


def tool_of(action: type[Action]) -> Tool:
    """What a policy is told: name, docstring, and the JSON schema of the fields."""
    schema = action.model_json_schema()
    properties = {
        name: {key: value for key, value in field.items() if key != "title"}
        for name, field in schema.get("properties", {}).items()
    }
    return Tool(
        name=action.tool,
        description=action.__doc__ or "",
        parameters={
            "type": "object",
            "properties": properties,
            "required": list(schema.get("required", [])),
            "additionalProperties": False,
        },
    )


def _row(rows: Sequence[R], id: str) -> R:
    for row in rows:
        if row.id == id:
            return row
    raise ToolError(f"no such id: {id}")


def _open_ticket(state: State, id: str) -> Ticket:
    ticket = _row(state.tickets, id)
    if ticket.status == "closed":
        raise ToolError(f"{id} is closed")
    return ticket


def _refuse_overlap(event: Event, others: Iterable[Event]) -> None:
    end = event.start + event.hours
    if end > CLOSES:
        raise ToolError(f"it would end after {CLOSES}:00")
    for other in others:
        if other.day == event.day and other.start < end and event.start < other.start + other.hours:
            raise ToolError(f"it would overlap {other.title!r}")


def _listed(rows: Iterable[Row]) -> str:
    return "\n".join(row.model_dump_json() for row in rows) or "none"
