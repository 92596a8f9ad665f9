"""What a text says of colour, side, on or off, place and thing, and whether a task contradicts it or asks for more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

COLOURS = ("red", "blue", "pink")
SIDES = ("left", "right")
PLACES = ("table", "slider", "drawer")
SLOTS = ("colour", "side", "light", "place", "switch", "door")

_VALUES: Mapping[str, Mapping[str, str]] = {
    "colour": {"red": r"red", "blue": r"blue", "pink": r"pink"},
    "side": {
        "left": r"left|leftwards?|leftmost|counter ?clockwise|anti ?clockwise|counterclockwise",
        "right": r"(?<!all )(?<!that's )right|rightwards?|rightmost|clockwise",
    },
    "switch": {"on": r"on|lit|bright|burning|shine|shining|light up|lights up|glow", "off": r"off|out|dark|kill"},
    "door": {"open": r"open|opened|pull|out|slide", "close": r"close|closed|shut|push|in|back|shove"},
    "place": {
        "slider": r"cabinet|slider|sliding|shelf|cupboard",
        "drawer": r"drawer",
        "table": r"table|tabletop|desk",
    },
    "light": {
        "led": r"led|green|button",
        "lightbulb": r"lightbulb|bulb|yellow|lever|switch(?! (?:on|off|the|it|that|them|this))",
    },
}
_BLOCK = (
    r"blocks?|cubes?|bricks?|one|thing|it|that|box|object|tower|stack|them|held|holding|hand|gripper|piece|boxes|pile"
)
_THINGS: Mapping[str, str] = {
    "drawer": r"drawer",
    "slider": r"slider|sliding|door|cabinet",
    "led": r"led|green|button|lamp|light",
    "lightbulb": r"lightbulb|bulb|yellow|lamp|light|switch|lever",
    "block": _BLOCK,
}
_OTHER_COLOUR = (
    r"\b(?:green|yellow|black|white|orange|purple|brown|grey|gray|golden|silver|violet) (?:block|cube|brick|one)"
)
_NEGATED = (
    r"\b(?:don't|do not|never|without|avoid|refuse|forbid|not allowed|no need|nobody|wouldn't|mustn't|shouldn't"
    r"|didn't|doesn't|isn't|won't|no more|there (?:is|are) no)\b"
)
_SOMEWHERE = r"\b(?:in|into|inside|within|from|out of|side of) (?:the |that |this )?door\b|\b(?:inside|inside of|into)$"
"""A place that was not understood: "drawer" is easily lost, or heard as "door", and in a door there is no room."""
_SIDEWAYS = r"\b(?:push|slide|move|shift|shove|nudge|rotate|turn|spin|twist|swivel)\b"
_ELSEWHERE = r"\b(?:up|upwards?|down|downwards?|towards?|away|off|onto|on|in|into|out|under|behind|against|from)\b"
_TOLD = (
    r"^(?:(?:the|your|my|that|this|it|they|i|he|she|we|there|somebody|someone|you|nobody)\b.*)?"
    r"\b(?:was|were|had|has been|have been|used to)\b"
)
_ASKED = r"\b(?:please|could you|would you|can you|will you|want you to|need you to|should)\b"
_PLACING = (
    r"\b(?:put|place|drop|lay|store|set|insert|stash|bring)\b.*\b(?:in|into|inside)\b.*\b(?:drawer|cabinet|slider)\b"
)
_POLITE_NEGATED = (
    r"\b(?:if you don't mind|you don't mind|why don't you|without picking it up|wouldn't mind|don't need|don't we)\b"
)


@dataclass(frozen=True)
class TaskSlots:
    """What a task fixes: values by slot, and the thing it is about; from its name in CALVIN."""

    thing: str
    values: Mapping[str, str]

    @property
    def required(self) -> tuple[str, ...]:
        """Slots that a text must name for this task, or the robot asks."""
        return tuple(slot for slot in ("colour", "side", "light") if slot in self.values)


@cache
def of_task(task: str) -> TaskSlots:
    """Slots of one of CALVIN's 34 tasks."""
    parts = task.split("_")
    values = {slot: part for slot, names in (("colour", COLOURS), ("side", SIDES)) for part in parts if part in names}
    thing = "block"
    if task in ("open_drawer", "close_drawer"):
        thing, values["door"] = "drawer", parts[0]
    elif task.startswith("move_slider"):
        thing = "slider"
    elif parts[0] == "turn":
        thing, values["switch"], values["light"] = parts[2], parts[1], parts[2]
    elif parts[0] in ("lift", "place") and parts[-1] in PLACES:
        values["place"] = parts[-1]
    elif task == "push_into_drawer":
        values["place"] = "drawer"
    return TaskSlots(thing, values)


@cache
def named(text: str) -> Mapping[str, frozenset[str]]:
    """Values of each slot that a normalised text names; several where it corrects itself."""
    return {
        slot: frozenset(value for value, pattern in values.items() if re.search(rf"\b(?:{pattern})\b", text))
        for slot, values in _VALUES.items()
    }


def contradicts(text: str, task: str) -> bool:
    """Whether a normalised text speaks against a task: it names other values, another thing or another colour."""
    slots, said = of_task(task), named(text)
    if not re.search(rf"\b(?:{_THINGS[slots.thing]})\b", text):
        return True
    if slots.thing == "block" and re.search(_OTHER_COLOUR, text):
        return True
    for slot, value in slots.values.items():
        # The cabinet or the drawer may be the goal of one task and the place of another; the table needs no naming.
        if said[slot] and value not in said[slot] and not (slot == "place" and value == "table"):
            return True
    return False


def unnamed(text: str, task: str) -> tuple[str, ...]:
    """Slots that the task needs and a normalised text does not name."""
    said, slots = named(text), of_task(task)
    missing = tuple(slot for slot in slots.required if not said[slot])
    return (*missing, "place") if "place" in slots.values and re.search(_SOMEWHERE, text) else missing


def negated(text: str) -> bool:
    """Whether a normalised text says what is not to be done."""
    return bool(re.search(_NEGATED, re.sub(_POLITE_NEGATED, "", text)))


def told(text: str) -> bool:
    """Whether a normalised text tells of something that has been, and asks for nothing."""
    return bool(re.search(_TOLD, text)) and not re.search(_ASKED, text)


def placed(text: str) -> tuple[str, str]:
    """If a block of some colour is to be put into something: the colour, and the text without it; else '' twice.

    The task is the placing alone; which block is a matter of lifting it first.
    """
    if not re.search(_PLACING, text) or len(colours := named(text)["colour"]) != 1:
        return "", ""
    (colour,) = colours
    return colour, " ".join(re.sub(rf"\b{colour}\b", "", text).split())


def completions(text: str) -> list[str]:
    """A normalised text that leaves something open, with it filled in: what it would be about if it named it."""
    said = named(text)
    filled = [text]
    if not said["colour"] and not re.search(_OTHER_COLOUR, text):
        filled = [
            re.sub(r"\b(?:a|the|that|this)? ?(block|cube|brick)\b", rf" the {colour} \1", each, count=1)
            for each in filled
            for colour in COLOURS
        ]
    if not said["side"] and re.search(_SIDEWAYS, text) and not re.search(_ELSEWHERE, text):
        filled += [f"{each} to the {side}" for each in filled for side in SIDES]
    return [found for each in dict.fromkeys(filled) if (found := " ".join(each.split())) != text]


def differing(tasks: Sequence[str]) -> str:
    """The one slot in which some tasks differ, all else being equal; '' if there is none or more."""
    names = {task: of_task(task) for task in tasks}
    slots = [slot for slot in SLOTS if len({names[task].values.get(slot) for task in tasks}) > 1]
    if len(slots) != 1:
        return ""
    frames = {_without(task, names[task].values.get(slots[0], "")) for task in tasks}
    return slots[0] if len(frames) == 1 else ""


def _without(task: str, value: str) -> str:
    return "_".join(part for part in task.split("_") if part != value)


def siblings(task: str, slot: str, tasks: Sequence[str]) -> list[str]:
    """The tasks that differ from one at most in a slot; nothing is in the table."""
    own = of_task(task).values.get(slot, "")
    frame = _without(task, own)
    return [
        other
        for other in tasks
        if slot in of_task(other).values
        and not (slot == "place" and of_task(other).values[slot] == "table")
        and _without(other, of_task(other).values[slot]) == frame
    ]
