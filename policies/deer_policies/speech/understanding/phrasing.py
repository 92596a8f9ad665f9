"""What the robot says: a task in a few words, a question between two, and why it does nothing."""

from __future__ import annotations

from collections.abc import Sequence

from deer_policies.speech.understanding.slots import of_task

_PLACES = {"table": "from the table", "slider": "from the cabinet", "drawer": "from the drawer"}
_LIGHTS = {"led": "green", "lightbulb": "yellow"}
_FIXED = {
    "open_drawer": "drawer, open",
    "close_drawer": "drawer, close",
    "move_slider_left": "sliding door, to the left",
    "move_slider_right": "sliding door, to the right",
    "place_in_slider": "into the cabinet",
    "place_in_drawer": "into the drawer",
    "push_into_drawer": "block, push into the drawer",
    "stack_block": "stack the blocks",
    "unstack_block": "take the upper block off",
    "turn_on_lightbulb": "yellow light, on",
    "turn_off_lightbulb": "yellow light, off",
    "turn_on_led": "green light, on",
    "turn_off_led": "green light, off",
}
_CHOICES = {
    "colour": lambda values: f"the {_either(values)} block?",
    "side": lambda values: f"to the {_either(values)}?",
    "light": lambda values: f"the {_either([_LIGHTS[value] for value in values])} light?",
    "switch": lambda values: f"{_either(values)}?",
    "door": lambda values: f"{_either(values)} it?",
    "place": lambda values: f"in the {_either([value.replace('slider', 'cabinet') for value in values])}?",
}


def spoken(task: str) -> str:
    """A task in a few words, as a person would repeat it."""
    if task in _FIXED:
        return _FIXED[task]
    parts, values = task.split("_"), of_task(task).values
    colour = values.get("colour", "")
    if parts[0] == "lift":
        return f"{colour} block, lift {_PLACES[parts[-1]]}"
    return f"{colour} block, {parts[0]} {values['side']}"


def plan_spoken(tasks: Sequence[str]) -> str:
    """Several tasks in a row; a block that is lifted to be put somewhere is said in one."""
    if len(tasks) == 2 and tasks[0].startswith("lift") and tasks[1].startswith("place"):
        return f"{of_task(tasks[0]).values['colour']} block, {spoken(tasks[1])}"
    return ", then ".join(spoken(task) for task in tasks)


def question(slot: str, tasks: Sequence[str]) -> str:
    """Asks which of some tasks is meant, that differ in a slot."""
    values = list(dict.fromkeys(of_task(task).values[slot] for task in tasks))
    return str(_CHOICES[slot](values))


def choice(tasks: Sequence[str]) -> str:
    """Asks which of two tasks is meant."""
    return f"{_either([spoken(task) for task in tasks])}?"


def _either(values: Sequence[str]) -> str:
    return ", ".join(values[:-1]) + f" or {values[-1]}" if len(values) > 1 else values[0]
