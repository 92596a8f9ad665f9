"""Shows a demonstration while it runs: a live panel in a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

from deer_ros.cli.demo.record import SubtaskRecord
from deer_ros.reports import StepFeedback
from deer_sim.chains import Subtask
from deer_sim.film import exit_colour, format_gmac

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

Item = TypeVar("Item")
BLOCKS = "▁▂▃▄▅▆▇█"
STRIP_STEPS = 48
"""Exits shown of a subtask; fewer in a narrow terminal."""
PLAIN_EVERY = 30
"""Plain output tells of the robot about every 30 control steps, a second of its time."""


class Progress(Protocol):
    """What a demonstration tells while it runs; a context manager."""

    def __enter__(self) -> Progress: ...

    def __exit__(self, *_: object) -> None: ...

    def note(self, text: str) -> None:
        """Something that happened."""
        ...

    def begin(self, number: int, subtask: Subtask) -> None:
        """An instruction is given."""
        ...

    def step(self, feedback: StepFeedback) -> None:
        """The policy was asked."""
        ...

    def end(self, record: SubtaskRecord) -> None:
        """The instruction ended."""
        ...

    def budget(self, average_gmac: float, share: float) -> None:
        """The average budget was set; `share` is its part of the full model's cost."""
        ...

    def track(self, items: Sequence[Item], text: str) -> Iterable[Item]:
        """Passes the items on and shows how many are done."""
        ...


def open_progress(exit_count: int, subtasks: Sequence[Subtask], title: str) -> Progress:
    """A live panel if standard output is a terminal, else plain lines."""
    if sys.stdout.isatty():
        return LiveProgress(exit_count, subtasks, title)
    return PlainProgress(exit_count, len(subtasks), sys.stdout)


@dataclass
class Tally:
    """Running figures of one subtask, or of the whole chain."""

    exits: list[int] = field(default_factory=list)
    spent_gmac: float = 0.0
    full_gmac: float = 0.0
    steps: int = 0
    """Control steps of the subtask so far; exits and costs are by policy step."""

    def add(self, feedback: StepFeedback) -> None:
        """Counts a policy step."""
        self.exits.append(feedback.exit_index)
        self.steps = feedback.step
        self.spent_gmac += feedback.llm_gmac
        self.full_gmac += feedback.full_llm_gmac

    @property
    def share(self) -> float:
        """Compute spent against always running the full language model."""
        return self.spent_gmac / self.full_gmac if self.full_gmac else 0.0


class PlainProgress:
    """Lines of text, for pipes and logs."""

    def __init__(self, exit_count: int, count: int, out: TextIO) -> None:
        self._exit_count = exit_count
        self._count = count
        self._out = out
        self._tally = Tally()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.flush()

    def note(self, text: str) -> None:
        """Prints a line."""
        print(text, file=self._out, flush=True)

    def begin(self, number: int, subtask: Subtask) -> None:
        """Prints the instruction."""
        self._tally = Tally()
        self.note(f'{number + 1}/{self._count} "{subtask.instruction}" ({subtask.task})')

    def step(self, feedback: StepFeedback) -> None:
        """Prints a step each `PLAIN_EVERY` control steps, or the next one at which the policy was asked."""
        before = self._tally.steps
        self._tally.add(feedback)
        if feedback.step // PLAIN_EVERY > before // PLAIN_EVERY:
            self.note(
                f"    step {feedback.step:3d}  exit {feedback.exit_index} of {self._exit_count - 1}  "
                f"{feedback.latency_ms:5.1f} ms  {self._tally.share:.0%} of the full model so far"
            )

    def end(self, record: SubtaskRecord) -> None:
        """Prints the outcome."""
        word = "done" if record.success else f"not done ({record.reason})"
        self.note(f"    {word} after {record.steps} steps, {self._tally.share:.0%} of the full model")

    def budget(self, average_gmac: float, share: float) -> None:
        """Prints the budget."""
        self.note(f"    budget: {format_gmac(average_gmac)} a step on average, {share:.0%} of the full model")

    def track(self, items: Sequence[Item], text: str) -> Iterator[Item]:
        """Says what is being done, once."""
        self.note(text)
        yield from items


class LiveProgress:
    """A panel that is drawn anew with each step."""

    def __init__(self, exit_count: int, subtasks: Sequence[Subtask], title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._exit_count = exit_count
        self._subtasks = subtasks
        self._title = title
        self._tallies = [Tally() for _ in subtasks]
        self._whole = Tally()
        self._records: list[SubtaskRecord] = []
        self._running: int | None = None
        self._last: StepFeedback | None = None
        self._budget = ""
        self._console = Console()
        self._strip_steps = max(8, min(STRIP_STEPS, (self._console.width - 30) // 2))
        self._live = Live(console=self._console, refresh_per_second=12, get_renderable=self.render, transient=False)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Prints a line above the panel."""
        self._console.print(text, highlight=False, markup=False)

    def begin(self, number: int, subtask: Subtask) -> None:
        """Marks the instruction as running."""
        self._running = number

    def step(self, feedback: StepFeedback) -> None:
        """Counts a policy step; the panel is drawn from these figures."""
        if self._running is not None:
            self._tallies[self._running].add(feedback)
            self._whole.add(feedback)
            self._last = feedback

    def end(self, record: SubtaskRecord) -> None:
        """Marks the instruction as ended."""
        self._records.append(record)
        self._running = None

    def budget(self, average_gmac: float, share: float) -> None:
        """Shows the budget in force."""
        self._budget = f"budget {share:.0%} of the full model ({format_gmac(average_gmac)} a step)"

    def track(self, items: Sequence[Item], text: str) -> Iterator[Item]:
        """Shows a bar below the panel, which is left as it is."""
        from rich.progress import track

        self._live.stop()
        yield from track(items, description=text, console=self._console)

    def render(self) -> RenderableType:
        """The panel: a row for each instruction, and the last step below."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(width=1)
        table.add_column(ratio=1, overflow="ellipsis", no_wrap=True)
        table.add_column(justify="right", width=9)
        table.add_column(width=self._strip_steps, no_wrap=True)
        table.add_column(justify="right", width=5)
        for number, subtask in enumerate(self._subtasks):
            tally = self._tallies[number]
            sign, style = self._sign(number)
            steps = f"{tally.steps} steps" if tally.exits else ""
            share = f"{tally.share:.0%}" if tally.exits else ""
            words = Text(subtask.instruction, style="bold" if number == self._running else style if sign == "✗" else "")
            table.add_row(Text(sign, style=style), words, steps, self._strip(tally.exits), share)
        lines = [self._budget or "starting"]
        if self._last is not None:
            lines.append(
                f"exit {self._last.exit_index}, {self._last.exit_layer + 1} layers, {self._last.latency_ms:.1f} ms"
            )
            lines.append(f"so far {self._whole.share:.0%} of the full model")
        footer = Text("  ·  ".join(lines), style="dim")
        return Panel(Group(table, "", footer), title=self._title, border_style="dim")

    def _sign(self, number: int) -> tuple[str, str]:
        if number < len(self._records):
            return ("✓", "green") if self._records[number].success else ("✗", "red")
        return ("●", "bold yellow") if number == self._running else ("·", "dim")

    def _strip(self, exits: Sequence[int]) -> Text:
        from rich.text import Text

        strip = Text()
        for exit_index in exits[-self._strip_steps :]:
            red, green, blue = exit_colour(exit_index, self._exit_count)
            block = BLOCKS[round((exit_index + 1) / self._exit_count * len(BLOCKS)) - 1]
            strip.append(block, style=f"rgb({red},{green},{blue})")
        return strip
