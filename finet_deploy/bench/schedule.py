"""The order of the visits: every row once a round, and each row at each position about equally often."""

from __future__ import annotations

from collections.abc import Sequence

from finet_deploy.bench.protocol import Visit

__all__ = ["plan_visits", "rotation"]


def rotation(count: int, rounds: int) -> list[list[int]]:
    """For each round the order of `count` items.

    The first round's order zigzags (0, 1, n-1, 2, n-2, ...) and each later one adds a shift modulo n. These are the
    rows of Williams' square (E. J. Williams, Austral. J. Sci. Res. A 2, 1949): over n rounds each item is at each
    position once, and who runs before whom changes from round to round, so that neither drift nor the heat that one
    row leaves behind always hits the same one. With fewer rounds than items the shifts are spread evenly.
    """
    zigzag = [(i + 1) // 2 if i % 2 else (count - i // 2) % count for i in range(count)]
    shifts = [r * count // rounds if rounds < count else r for r in range(rounds)]
    return [[(item + shift) % count for item in zigzag] for shift in shifts]


def plan_visits(groups: Sequence[Sequence[str]], rounds: int) -> tuple[Visit, ...]:
    """Visits of all rounds. `groups` are the row ids of each runtime.

    The rows of one runtime follow one another within a round, because ratios are taken between them; the order of
    the runtimes rotates as well.
    """
    visits: list[Visit] = []
    group_orders = rotation(len(groups), rounds)
    row_orders = [rotation(len(rows), rounds) for rows in groups]
    for round_number, group_order in enumerate(group_orders):
        ordered = [groups[g][item] for g in group_order for item in row_orders[g][round_number]]
        for position, row in enumerate(ordered):
            visits.append(Visit(index=len(visits), round=round_number, position=position, row=row))
    return tuple(visits)
