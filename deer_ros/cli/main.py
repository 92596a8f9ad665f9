"""The `deer` command: finds the subcommand, runs it, and turns user errors into one clear line."""

from __future__ import annotations

import argparse
import importlib
import keyword
import logging
import shlex
import sys
from collections.abc import Sequence

from deer_policies.errors import DeerError

COMMANDS = (
    *("demo", "talk", "up", "record", "doctor", "security", "models", "collect", "dataset", "import", "train", "teach"),
    *("calibrate", "tune", "faults", "spotter", "ask", "eval", "compare", "bundle", "replay", "crosscheck", "parity"),
    *("cost", "measure"),
)
"""Subcommands in the order of `deer --help`; each is the module `deer_ros.cli.<name>` with HELP, configure and run.

The module of a name that Python keeps for itself ends in an underscore.
"""

DESCRIPTION = "Robot control with a multi-exit multimodal policy: it runs only as many layers as the moment asks for."
EPILOG = """\
first steps:
  deer doctor        is this machine ready, and if not, what to do
  deer demo          watch the robot follow five instructions in simulation
  deer COMMAND -h    what a command takes
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the subcommands' heavy libraries are not imported for it."""
    parser = argparse.ArgumentParser(
        prog="deer", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"deer_ros.cli.{name}{'_' * keyword.iskeyword(name)}")
        subparser = subparsers.add_parser(
            name, help=module.HELP, description=module.HELP, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.configure(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def parsed(argv: Sequence[str]) -> argparse.Namespace:
    """A subcommand's arguments; `run` is what runs it, and `command_line` what a user would type for the same."""
    arguments = build_parser().parse_args(argv)
    arguments.command_line = shlex.join(["deer", *argv])
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns its exit status; 2 for a user error, 130 after Ctrl-C."""
    arguments = parsed(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        return int(arguments.run(arguments))
    except DeerError as error:
        print(f"deer {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"deer {arguments.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
