"""`deer ask`: what a policy would make of an instruction, without moving anything."""

from __future__ import annotations

import argparse

HELP = "print what a policy would make of an instruction: the task, or that it is none of its skills"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("text", nargs="+", help="the instruction")
    parser.add_argument("--policy", default="deer-nano", help="name of a bundled policy, or path of a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Prints the judgement; 1 for a text that the robot would refuse."""
    from deer_policies.deer.checkpoint import load
    from deer_policies.errors import ConfigError
    from deer_policies.interfaces import checked_instruction

    text = checked_instruction(" ".join(arguments.text))
    skills = load(arguments.policy, exits=1).skills
    if skills is None:
        raise ConfigError(
            f"policy {arguments.policy} has no recogniser of skills and follows any text; train one with `skills` in "
            "the recipe, or add one to a checkpoint with `deer teach`"
        )
    found = skills.understand([text])[0]
    if found.known:
        print(f"{found.task} (score {found.score:.2f}), as in {found.example!r}")
        return 0
    print(found.refusal(text))
    return 1
