"""Errands in an office: what is asked in words, and the deeds that do it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from palestra.envs.tool_use import actions as a
from palestra.envs.tool_use.play import Deed
from palestra.envs.tool_use.state import (
    Category,
    Day,
    Event,
    Order,
    Product,
    State,
    Ticket,
)

DAYS: tuple[Day, ...] = get_args(Day)
CATEGORIES: tuple[Category, ...] = ("chair", "lamp", "desk")
PEOPLE = tuple("Ada Ben Cleo Dan Eva Finn".split())
STAFF = tuple("Kim Leo Mia".split())
TO_MOVE = tuple("standup budget planning training audit".split())
TO_CANCEL = tuple("lunch retreat demo tour choir".split())
NEW_EVENTS = tuple("interview review rehearsal inspection".split())
MODELS = tuple("Arc Bow Cove Dune Elm Fir Glen Hill Isle Jade Knoll Lark".split())
STATIONERY = tuple("paper pencils folders stamps".split())
TOPICS = tuple("printer heating door projector".split())
NEW_TOPICS = tuple("window kettle lift".split())
SIZE = {1: 4, 2: 6, 3: 8, 4: 10}
"""Events, and tickets, by difficulty."""


@dataclass(frozen=True)
class Errand:
    """What is asked, and the deeds that do it; none of them is in vain."""

    asked: str
    deeds: tuple[Deed, ...]


def office(rng: random.Random, difficulty: int) -> State:
    """An office to begin with: no two events overlap, and prices and ages of tickets differ."""
    state, size = State(), SIZE[difficulty]
    places = rng.sample([(day, hour) for day in DAYS for hour in range(a.OPENS, a.CLOSES, 2)], size)
    titles = [*rng.sample(TO_MOVE, size // 2), *rng.sample(TO_CANCEL, size // 2)]
    state.events = [
        Event(id=state.new_id(), title=title, day=day, start=hour, hours=rng.randint(1, 2))
        for title, (day, hour) in zip(titles, places, strict=True)
    ]
    prices = iter(rng.sample(range(20, 200), 16))
    state.products = [
        Product(
            id=state.new_id(),
            name=f"{model} {kind}",
            category=kind,
            price=next(prices),
            stock=rng.randint(4, 12),
        )
        for model, kind in zip(rng.sample(MODELS, 12), CATEGORIES * 4, strict=True)
    ]
    for name in STATIONERY:
        product = Product(
            id=state.new_id(), name=name, category="stationery", price=next(prices), stock=20
        )
        state.products.append(product)
    state.orders = [
        Order(id=state.new_id(), product=name, quantity=rng.randint(1, 9)) for name in STATIONERY
    ]
    ages = rng.sample(range(1, 60), size)
    openers = [*PEOPLE[:2], *(rng.choice(PEOPLE[:3]) for _ in ages[2:])]
    state.tickets = [
        Ticket(
            id=state.new_id(),
            topic=rng.choice(TOPICS),
            opened_by=who,
            days_open=age,
            assignee="",
            status="open",
        )
        for who, age in zip(openers, ages, strict=True)
    ]
    return state


def book(rng: random.Random, state: State) -> Errand:
    """An event in the first hour that is free."""
    day = rng.choice([day for day in DAYS if _free(state, day, 1)])
    start, title = _free(state, day, 1)[0], rng.choice(NEW_EVENTS)
    act = a.BookEvent(title=title, day=day, start=start, hours=1)
    asked = f'Book the event "{title}" for one hour on {day}, in the first hour that is free.'
    return Errand(asked, (Deed(a.FindEvents(day=day), lambda _: act),))


def move(rng: random.Random, state: State) -> Errand:
    """An event that is there already, to an hour that is free."""
    event = rng.choice([event for event in state.events if event.title in TO_MOVE])
    day = rng.choice([day for day in DAYS if day != event.day and _free(state, day, event.hours)])
    start = rng.choice(_free(state, day, event.hours))

    def act(now: State) -> a.Action:
        return a.MoveEvent(id=_event(now, event.title), day=day, start=start)

    asked = f'Move the event "{event.title}" from {event.day} to {day} at {start}:00.'
    return Errand(asked, (Deed(a.FindEvents(day=event.day), act),))


def cancel(rng: random.Random, state: State) -> Errand:
    """An event that is there already."""
    event = rng.choice([event for event in state.events if event.title in TO_CANCEL])

    def act(now: State) -> a.Action:
        return a.CancelEvent(id=_event(now, event.title))

    asked = f'Cancel the event "{event.title}" on {event.day}.'
    return Errand(asked, (Deed(a.FindEvents(day=event.day), act),))


def buy(rng: random.Random, state: State) -> Errand:
    """The cheapest product of which there is enough."""
    category, quantity = rng.choice(CATEGORIES), rng.randint(2, 4)
    fitting = [p for p in state.products if p.category == category and p.stock >= quantity]
    name = min(fitting, key=lambda product: product.price).name

    def act(now: State) -> a.Action:
        [id] = [product.id for product in now.products if product.name == name]
        return a.PlaceOrder(id=id, quantity=quantity)

    asked = f"Order {quantity} of the cheapest {category} of which at least {quantity} are in stock"
    return Errand(f"{asked}.", (Deed(a.FindProducts(category=category), act),))


def send_back(rng: random.Random, state: State) -> Errand:
    """An order that is there already."""
    name = rng.choice(STATIONERY)

    def act(now: State) -> a.Action:
        [id] = [order.id for order in now.orders if order.product == name]
        return a.CancelOrder(id=id)

    return Errand(f"Cancel the order of {name}.", (Deed(a.FindOrders(), act),))


def assign(rng: random.Random, state: State) -> Errand:
    """The oldest ticket of a topic."""
    topic = rng.choice([ticket.topic for ticket in _open(state)])
    oldest = max(
        (ticket for ticket in _open(state) if ticket.topic == topic), key=lambda t: t.days_open
    )
    who = rng.choice(STAFF)

    def act(now: State) -> a.Action:
        return a.AssignTicket(id=_ticket(now, oldest.days_open), assignee=who)

    asked = f'Assign the oldest open ticket about "{topic}" to {who}.'
    return Errand(asked, (Deed(a.FindTickets(status="open"), act),))


def close(rng: random.Random, state: State) -> Errand:
    """Every ticket of a person."""
    who = rng.choice([ticket.opened_by for ticket in _open(state)])

    def closing(age: int) -> Callable[[State], a.Action]:
        return lambda now: a.CloseTicket(id=_ticket(now, age))

    look = a.FindTickets(status="open")
    ages = [ticket.days_open for ticket in _open(state) if ticket.opened_by == who]
    asked = f"Close every open ticket that {who} opened."
    return Errand(asked, tuple(Deed(look, closing(age)) for age in ages))


def report(rng: random.Random, state: State) -> Errand:
    """A new ticket."""
    act = a.OpenTicket(topic=rng.choice(NEW_TOPICS), opened_by=rng.choice(PEOPLE[3:]))
    asked = f'Open a ticket about "{act.topic}" for {act.opened_by}.'
    return Errand(asked, (Deed(a.FindTickets(status="open"), lambda _: act),))


ERRANDS: Mapping[str, Callable[[random.Random, State], Errand]] = {
    errand.__name__: errand
    for errand in (book, move, cancel, buy, send_back, assign, close, report)
}
"""Each makes an errand for an office as it is. Different ones never undo each other's deeds."""


def _free(state: State, day: Day, hours: int) -> list[int]:
    """Hours at which so long an event could begin."""
    taken = {
        event.start + n for event in state.events if event.day == day for n in range(event.hours)
    }
    starts = range(a.OPENS, a.CLOSES - hours + 1)
    return [start for start in starts if taken.isdisjoint(range(start, start + hours))]


def _open(state: State) -> list[Ticket]:
    return [t for t in state.tickets if t.status == "open" and t.topic in TOPICS]


def _event(state: State, title: str) -> str:
    [id] = [event.id for event in state.events if event.title == title]
    return id


def _ticket(state: State, age: int) -> str:
    [id] = [ticket.id for ticket in state.tickets if ticket.days_open == age]
    return id
