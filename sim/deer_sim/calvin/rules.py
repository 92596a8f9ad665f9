"""The symbolic model of CALVIN's evaluation: which task can be done in which state, and what it leaves behind.

The rules are those of Mees et al., 'CALVIN' (2022), https://github.com/mees/calvin, with one slip of theirs: placing a
block in the cabinet is said to put it on the side behind the door, where it never comes to lie (see `defies_door`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product

from deer_sim.environment import BLOCKS
from deer_sim.tasks import TASKS

Condition = Mapping[str, str | int]
"""A symbolic state, in CALVIN's order of keys: led, lightbulb, slider, drawer, red_block, blue_block, pink_block,
grasped."""

SIDES = ("slider_right", "slider_left")


@dataclass(frozen=True)
class Rule:
    """A task can be done where all of `needs` hold; then `gives` hold."""

    needs: tuple[tuple[str, str | int], ...]
    gives: tuple[tuple[str, str | int], ...]

    def applies(self, state: Condition) -> bool:
        """Whether the task can be done in this way."""
        return all(state[key] == value for key, value in self.needs)


def _rule(needs: Condition, gives: Condition) -> Rule:
    return Rule(tuple({"grasped": 0, **needs}.items()), tuple(gives.items()))


def _block_rules() -> Iterator[tuple[str, Rule]]:
    """The rules of tasks about one named block."""
    for colour in BLOCKS:
        block = f"{colour}_block"
        held: Condition = {block: "grasped", "grasped": 1}
        for side in ("right", "left"):
            yield f"rotate_{block}_{side}", _rule({block: "table"}, {})
            yield f"push_{block}_{side}", _rule({block: "table"}, {})
        yield f"lift_{block}_table", _rule({block: "table"}, held)
        yield f"lift_{block}_slider", _rule({block: "slider_left", "slider": "right"}, held)
        yield f"lift_{block}_slider", _rule({block: "slider_right", "slider": "left"}, held)
        yield f"lift_{block}_drawer", _rule({block: "drawer", "drawer": "open"}, held)


def _any_block_rules() -> Iterator[tuple[str, Rule]]:
    """The rules of tasks that name no block; there is one for each block that they may be about."""
    for colour in BLOCKS:
        block = f"{colour}_block"
        for side in ("right", "left"):
            into: Condition = {block: f"slider_{side}", "grasped": 0}
            yield "place_in_slider", _rule({block: "grasped", "slider": side, "grasped": 1}, into)
        into = {block: "drawer", "grasped": 0}
        yield "place_in_drawer", _rule({block: "grasped", "drawer": "open", "grasped": 1}, into)
        one, other = (f"{name}_block" for name in BLOCKS if name != colour)
        for places in product(SIDES, repeat=2):
            away = dict(zip((one, other), places, strict=True))
            yield "push_into_drawer", _rule({block: "table", **away, "drawer": "open"}, {block: "drawer"})
    for top, bottom in permutations((f"{colour}_block" for colour in BLOCKS), 2):
        stacked: Condition = {top: "stacked_top", bottom: "stacked_bottom"}
        yield "stack_block", _rule({top: "grasped", bottom: "table", "grasped": 1}, {**stacked, "grasped": 0})
        yield "unstack_block", _rule(stacked, {top: "table", bottom: "table"})


def _fixture_rules() -> Iterator[tuple[str, Rule]]:
    for left, right in (("left", "right"), ("right", "left")):
        yield f"move_slider_{left}", _rule({"slider": right}, {"slider": left})
    yield "open_drawer", _rule({"drawer": "closed"}, {"drawer": "open"})
    yield "close_drawer", _rule({"drawer": "open"}, {"drawer": "closed"})
    for light in ("lightbulb", "led"):
        yield f"turn_on_{light}", _rule({light: 0}, {light: 1})
        yield f"turn_off_{light}", _rule({light: 1}, {light: 0})


def _by_task() -> dict[str, tuple[Rule, ...]]:
    rules = [*_block_rules(), *_any_block_rules(), *_fixture_rules()]
    return {task: tuple(rule for name, rule in rules if name == task) for task in TASKS}


RULES = _by_task()
"""The rules of each task."""


def _category(task: str) -> str:
    """Tasks of one category never share a sequence."""
    if task.startswith(("rotate", "push_")) and task != "push_into_drawer":
        return "move a block"
    if task.startswith("lift"):
        return "lift from " + task.rsplit("_", 1)[1]
    for part in ("move_slider", "place_in", "turn_"):
        if task.startswith(part):
            return part
    return "drawer" if task in ("open_drawer", "close_drawer") else task


CATEGORIES = {task: _category(task) for task in TASKS}


def after(task: str, state: Condition) -> Condition | None:
    """The state that a task leaves behind; None where not exactly one of its rules applies."""
    found = [rule for rule in RULES[task] if rule.applies(state)]
    return {**state, **dict(found[0].gives)} if len(found) == 1 else None


def starting_conditions() -> list[Condition]:
    """The 192 states that sequences start in: one or two blocks on the table, at most one on either cabinet side."""
    choices: dict[str, tuple[str | int, ...]] = {
        "led": (0, 1),
        "lightbulb": (0, 1),
        "slider": ("right", "left"),
        "drawer": ("closed", "open"),
        **{f"{colour}_block": ("table", *SIDES) for colour in BLOCKS},
        "grasped": (0,),
    }
    states: list[Condition] = []
    for values in product(*choices.values()):
        places = values[4:7]
        if places.count("table") in (1, 2) and all(places.count(side) < 2 for side in SIDES):
            states.append(dict(zip(choices, values, strict=True)))
    return states


def defies_door(tasks: Sequence[str]) -> bool:
    """Whether a sequence can't be carried out as it is meant, because of the rules' slip.

    It places a block in the cabinet, moves the door, and then takes the same block out of the cabinet: by the rules the
    door has set the block free, in truth it has covered it. Five of the 1000 official sequences are like this.
    """
    held = placed = ""
    moved = False
    for task in tasks:
        if task.startswith("lift_"):
            held = task.split("_")[1]
            if moved and held == placed and task.endswith("_slider"):
                return True
        if task == "place_in_slider":
            placed, moved = held, False
        moved = moved or task.startswith("move_slider")
    return False
