"""Routes about episodes: the list, one as a conversation, its tokens, its group."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from palestra.deploy.dashboard import episodes, groups, models, query
from palestra.deploy.dashboard.api_runs import ERRORS
from palestra.deploy.dashboard.query import Filter, Sort, Text, Whole
from palestra.deploy.dashboard.sources import Sources
from palestra.rl.token_ratios import learner_logprobs
from palestra.rl.types import Outcome, Stop, Trajectory

SHOWN_STEPS = 2_000
Id = Annotated[str, Query(max_length=1_000)]


class Listing(Filter):
    """A filter, and which page of the episodes that match."""

    sort: Sort = "newest"
    cursor: Annotated[str, Query(max_length=64)] = ""
    """The `cursor` of the page before."""
    limit: Annotated[int, Query(ge=1, le=500)] = 100
    """Episodes of a page."""


class Place(Filter):
    """A filter, and the episode that one stands at."""

    id: Id


def routes(sources: Sources) -> APIRouter:
    """The routes, reading from these sources."""
    api = APIRouter(prefix="/api/runs/{run}", responses=ERRORS, tags=["episodes"])

    @api.get("/trajectories")
    def list_trajectories(run: Text, listing: Annotated[Listing, Query()]) -> models.EpisodePage:
        """Episodes that match, page by page."""
        chosen = Filter.model_validate(listing.model_dump(include=set(Filter.model_fields)))
        with sources.runs.journal(run) as journal, sources.index(run) as index:
            rows, cursor = query.page(index, chosen, listing.sort, listing.cursor, listing.limit)
            return models.EpisodePage(
                episodes=[groups.line(row) for row in rows],
                total=query.count(index, chosen),
                cursor=cursor,
                progress=sources.progress(run, journal),
            )

    @api.get("/facets")
    def get_facets(run: Text) -> models.FacetList:
        """How many episodes there are of each kind."""
        with sources.runs.journal(run) as journal, sources.index(run) as index:
            return models.FacetList(
                facets=[
                    models.Facet(
                        split=split or "train",
                        environment=environment,
                        outcome=Outcome(outcome),
                        stop=Stop(stop),
                        solved=bool(solved),
                        count=count,
                    )
                    for split, environment, outcome, stop, solved, count in query.facets(index)
                ],
                steps=query.steps_of(index, SHOWN_STEPS),
                progress=sources.progress(run, journal),
            )

    @api.get("/neighbours")
    def get_neighbours(run: Text, place: Annotated[Place, Query()]) -> models.Neighbours:
        """The episodes beside one, among those that match."""
        chosen = Filter.model_validate(place.model_dump(include=set(Filter.model_fields)))
        with sources.index(run) as index:
            previous, following, failed, failing = query.neighbours(index, place.id, chosen)
        return models.Neighbours(
            previous=previous, next=following, previous_failing=failed, next_failing=failing
        )

    @api.get("/trajectory")
    def get_trajectory(run: Text, id: Id) -> models.EpisodeDetail:
        """One episode as a conversation."""
        trajectory, split = _find(sources, run, id)
        if split != "train":
            return episodes.detail(id, split, trajectory)
        with sources.runs.journal(run) as journal:
            shaped = journal.shaped(trajectory.step).get(trajectory.id)
            judged = journal.judgements(trajectory.group_id)
        advantage = sources.advantage(run, trajectory.step, trajectory.id)
        return episodes.detail(id, split, trajectory, shaped, advantage, judged)

    @api.get("/tokens")
    def get_tokens(run: Text, id: Id) -> models.TokenView:
        """The tokens of an episode, with what they were sampled with."""
        trajectory, split = _find(sources, run, id)
        if split != "train":
            return episodes.token_view(trajectory, sources.decoder(run))
        with sources.runs.journal(run) as journal:
            learner = learner_logprobs(journal, trajectory.step)
        advantage = sources.advantage(run, trajectory.step, id)
        return episodes.token_view(trajectory, sources.decoder(run), advantage, learner)

    @api.get("/groups")
    def list_groups(run: Text, step: Whole) -> models.GroupList:
        """The groups of a step of training, with advantages."""
        return sources.groups(run, step)

    return api


def _find(sources: Sources, run: str, name: str) -> tuple[Trajectory, str]:
    with sources.runs.journal(run) as journal:
        found = episodes.find(journal, name)
    if found is None:
        raise HTTPException(404, "no such episode")
    return found
