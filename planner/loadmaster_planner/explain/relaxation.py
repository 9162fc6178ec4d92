"""The smallest sets of restrictions without which a plan or query is no longer empty.

The method is that of minimum hitting sets [1]_: restrictions that together leave nothing are a *conflict*, and
whatever helps must leave out a member of every conflict. A set that hits all known conflicts either helps, or shows
a conflict that was not known. Cost: some joins for each conflict, however many restrictions there are.

References
----------
.. [1] R. Reiter, Artificial Intelligence 32 (1987) 57, doi:10.1016/0004-3702(87)90062-2
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations
from typing import Generic, TypeVar

_R = TypeVar("_R", bound=Hashable)
_MOST_TRIALS = 300  # joins made before the search ends with what it has


def smallest_relaxations(
    restrictions: Sequence[_R], helps: Callable[[frozenset[_R]], bool], most_trials: int = _MOST_TRIALS
) -> tuple[frozenset[_R], ...]:
    """Find all sets of the smallest size whose removal helps.

    Parameters
    ----------
    helps : callable
        Says whether anything is left when the restrictions of a set are left out; leaving out more must not
        help less.
    most_trials : int
        The search ends after so many calls of `helps`, with what it has found.

    Returns
    -------
    sets : tuple of frozenset
        In the order of `restrictions`; the empty set where nothing needs to be left out, none where nothing helps.
    """
    search = _Search(tuple(restrictions), helps, most_trials)
    if not search.helps(frozenset(restrictions)):
        return ()
    for size in range(len(restrictions) + 1):
        found = search.of_size(size)
        if found or search.is_over:
            return tuple(found)
    return ()


class _Search(Generic[_R]):
    """The conflicts and the answers that are known so far."""

    def __init__(
        self, restrictions: tuple[_R, ...], helps: Callable[[frozenset[_R]], bool], most_trials: int
    ) -> None:
        self._restrictions = restrictions
        self._ask = helps
        self._left = most_trials
        self._answers: dict[frozenset[_R], bool] = {}
        self._conflicts: list[frozenset[_R]] = []

    @property
    def is_over(self) -> bool:
        """Whether no more may be asked."""
        return self._left <= 0

    def helps(self, removed: frozenset[_R]) -> bool:
        """Ask, once for each set."""
        if removed not in self._answers:
            self._left -= 1
            self._answers[removed] = self._ask(removed)
        return self._answers[removed]

    def of_size(self, size: int) -> list[frozenset[_R]]:
        """Return all sets of `size` that help."""
        found: dict[frozenset[_R], None] = {}
        n_known = -1
        while n_known < len(self._conflicts) and not self.is_over:  # each new conflict rules sets out
            n_known = len(self._conflicts)
            for candidate in self._hitting(frozenset(), size):
                if self.is_over:
                    break
                if candidate in found:
                    continue
                if self.helps(candidate):
                    found[candidate] = None
                else:
                    self._conflicts.append(self._conflict(candidate))
                    break
        place = {r: i for i, r in enumerate(self._restrictions)}
        return sorted(found, key=lambda s: sorted(place[r] for r in s))

    def _hitting(self, chosen: frozenset[_R], size: int) -> Iterator[frozenset[_R]]:
        """Return the sets of `size` around `chosen` that have a member of every known conflict."""
        missed = next((c for c in self._conflicts if not c & chosen), None)
        room = size - len(chosen)
        if missed is None:
            rest = [r for r in self._restrictions if r not in chosen]
            yield from (chosen.union(more) for more in combinations(rest, room))
        elif room:
            for r in self._restrictions:
                if r in missed:
                    yield from self._hitting(chosen | {r}, size)

    def _conflict(self, removed: frozenset[_R]) -> frozenset[_R]:
        """Return a conflict among what is left without `removed`, as small as leaving out one by one makes it."""
        kept = [r for r in self._restrictions if r not in removed]
        whole = frozenset(self._restrictions)
        step = max(1, len(kept) // 2)
        while True:  # larger pieces first: most restrictions have no part in a conflict
            i = 0
            while i < len(kept):
                without = kept[:i] + kept[i + step :]
                if not self.is_over and not self.helps(whole - frozenset(without)):
                    kept = without
                else:
                    i += step
            if step == 1:
                return frozenset(kept)
            step = max(1, step // 2)
