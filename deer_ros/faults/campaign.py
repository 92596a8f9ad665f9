"""Runs faults on the bench, one after the other, and keeps what came of each as it goes."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from deer_policies.errors import ConfigError
from deer_ros import graph
from deer_ros.errors import StackError
from deer_ros.faults.bench import FaultBench
from deer_ros.faults.catalogue import FAULTS, Fault, noticed_s

STEADY_TIMEOUT_S = 30.0
"""If the tool does not move without a pause for a second in this time, the machine is too busy for a campaign."""
WATCHED_S = 2.0
"""How long it is watched after one."""
RECOVERY_S = 60.0
BAR_S = 0.1
"""The arm is to hold within this time after the limit."""


@dataclass(frozen=True)
class Trial:
    """What one fault did.

    Attributes:
        fault: its name.
        limit_s: after which it is noticed at the latest; None where the arm need not hold.
        told_s: from the fault until the safety node said that it lets nothing pass; None if it did not.
        held_after_s: from the fault to the arm's standstill; None if it never stood.
        command_s: from the fault to the last command that was not standstill.
        travel_m, peak_m_s: the tool's way and greatest speed after the fault; before_m_s its speed before.
        state: of the safety node then, and why.
        recovered_s: from its end to motion, asked for anew; None if there was none.
        exits: deepest exit before and after.
        failure: what went otherwise than planned, in words.
    """

    fault: str
    limit_s: float | None
    told_s: float | None = None
    held_after_s: float | None = None
    command_s: float | None = None
    travel_m: float | None = None
    peak_m_s: float | None = None
    before_m_s: float | None = None
    state: str = ""
    recovered_s: float | None = None
    exits: tuple[int, int] = (-1, -1)
    failure: str = ""

    @property
    def within_bar(self) -> bool:
        """Whether it held in time, or need not, and came back."""
        held = self.limit_s is None or (self.held_after_s is not None and self.held_after_s <= self.limit_s + BAR_S)
        return held and not self.failure and self.recovered_s is not None


def chosen(names: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of those names, all of them for none. Raises ConfigError for an unknown one."""
    known = {fault.name: fault for fault in FAULTS}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"fault {unknown[0]!r} is unknown; there are {', '.join(known)}")
    return tuple(known[name] for name in names) or FAULTS


def limits_in_force() -> dict[str, float]:
    """Timeouts of the arm's parameter file."""
    sections = yaml.safe_load((graph.CONFIG_FOLDER / "arm.yaml").read_text())
    found = {**sections["/**/policy"]["ros__parameters"], **sections["/**/safety"]["ros__parameters"]}
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


class Campaign:
    """Trials of some faults, `rounds` times each; what was tried before is in the file and is not tried again.

    Args:
        make_bench: makes a bench that is not started.
        path: JSON file of all trials.
        tell: called with a line about each trial.
        seed: of the moments at which faults come.
    """

    def __init__(
        self, make_bench: Callable[[], FaultBench], path: Path, tell: Callable[[str], None], seed: int
    ) -> None:
        self._make_bench = make_bench
        self._path = path
        self._tell = tell
        self._random = random.Random(seed)
        self.trials: list[Trial] = (
            [Trial(**values) for values in json.loads(path.read_text())] if path.is_file() else []
        )

    def run(self, faults: Sequence[Fault], rounds: int) -> None:
        """Runs what is missing."""
        waiting = [fault for _ in range(rounds) for fault in faults]
        for trial in self.trials:
            done = next((fault for fault in waiting if fault.name == trial.fault), None)
            if done is not None:
                waiting.remove(done)
        while waiting:
            with self._make_bench() as bench:
                while waiting:
                    fault = waiting.pop(0)
                    self._keep(self._tried(bench, fault))
                    if fault.ends_everything or self.trials[-1].recovered_s is None:
                        break

    def _tried(self, bench: FaultBench, fault: Fault) -> Trial:
        limits = limits_in_force()
        try:
            bench.reset()
            bench.move()
            bench.until(bench.steady, STEADY_TIMEOUT_S, "a second of steady motion")
        except StackError as error:
            return Trial(fault.name, noticed_s(fault, limits), failure=f"before the fault: {error}")
        time.sleep(0.1 * self._random.random())
        before = max((exit_index for _, exit_index in bench.reports[-30:]), default=-1)
        fault_s = time.monotonic()
        fault.inject(bench)
        time.sleep(WATCHED_S)
        until_s = time.monotonic()
        held = bench.record().held(fault_s, until_s)
        told = [heard_s for heard_s, name, _ in bench.states if heard_s > fault_s and name != "ARMED"]
        state = ": ".join(bench.states[-1][1:]) if bench.states else ""
        after = max((index for heard_s, index in bench.reports if heard_s > fault_s + 0.5), default=-1)
        cleared_s = time.monotonic()
        recovered, failure = self._recovered(bench, fault)
        return Trial(
            fault=fault.name,
            limit_s=noticed_s(fault, limits),
            told_s=told[0] - fault_s if told else None,
            held_after_s=held.command_s if fault.no_arm else held.after_s,
            command_s=held.command_s,
            travel_m=None if fault.no_arm else held.travel_m,
            peak_m_s=None if fault.no_arm else held.peak_m_s,
            before_m_s=held.before_m_s,
            state=state,
            recovered_s=None if recovered is None else recovered - cleared_s,
            exits=(before, after),
            failure=failure,
        )

    def _recovered(self, bench: FaultBench, fault: Fault) -> tuple[float | None, str]:
        """When the arm moved again, or why it did not."""
        try:
            if fault.ends_everything:
                bench.until(lambda: bench.stack.failure is not None, 10.0, "the end of the bring-up")
                bench.close()
                with self._make_bench() as anew:
                    return anew.move(RECOVERY_S), ""
            fault.clear(bench)
            return bench.move(RECOVERY_S), ""
        except StackError as error:
            return None, str(error)

    def _keep(self, trial: Trial) -> None:
        self.trials.append(trial)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps([asdict(each) for each in self.trials], indent=1) + "\n")
        held = "did not stand" if trial.held_after_s is None else f"held after {1e3 * trial.held_after_s:.0f} ms"
        verdict = "ok" if trial.within_bar else "NOT within the bar"
        self._tell(f"{trial.fault}: {held} ({trial.state}); {verdict}{'; ' if trial.failure else ''}{trial.failure}")
