# SPDX-License-Identifier: Apache-2.0
"""The edits of models, by name: what each may change in the digests."""

from collections.abc import Callable
from typing import NamedTuple


class NoPlace(Exception):  # noqa: N818 (it is no error: another model may have one)
    """The model has no place for the edit."""


class Edit(NamedTuple):
    """An edit of a model.

    Parameters
    ----------
    name : str
        What it does, as a sentence.
    group : str
        What of a model it changes.
    rule : str
        What has to become of the digests: "unchanged", "graph" or "weights" (it changes, the
        other one may too), "only graph", "only weights" (the other one stays), or "refused".
    networks : tuple of str
        The real networks that certainly have a place for it.
    kinds : tuple of str, optional
        The steps that a generated model needs to certainly have one (see graph_strategies.py);
        None if none of them gives it one.
    apply : callable
        Edits a model in its place, with a source of random numbers; raises NoPlace. If the edit
        is to be refused it returns what the message is to match.
    """

    name: str
    group: str
    rule: str
    networks: tuple[str, ...]
    kinds: tuple[str, ...] | None
    apply: Callable


EDITS: dict[str, Edit] = {}

# See sources.py.
NETWORKS = ("magika", "silero", "silero_ifs", "squeezenet")
WITH_WEIGHTS = ("magika", "silero")
WITH_IFS = ("silero_ifs",)


def edit(group, rule, networks=NETWORKS, kinds=()):
    """Register a function as an edit."""

    def register(function):
        name = function.__name__.replace("_", " ")
        assert name not in EDITS
        EDITS[name] = Edit(name, group, rule, tuple(networks), kinds, function)
        return function

    return register


def cosmetic(networks=NETWORKS, kinds=()):
    """Register an edit that changes nothing of what is computed."""
    return edit("cosmetic", "unchanged", networks, kinds)
