"""OfficialTable: the official package `calvin_env` as a back end, in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from deer_policies.errors import SimulatorError
from deer_policies.interfaces import ACTION_SIZE, PROPRIOCEPTION_SIZE
from deer_sim.engine.cameras import EGL, TINY
from deer_sim.engine.environment import SCENE_OBS_SIZE, checked
from deer_sim.environment import BlockState, Contact, EnvironmentSpec, SceneState, TimeStep

PACKAGES = "pybullet gym hydra-core omegaconf scipy opencv-python-headless GitPython numpy-quaternion"
"""What `calvin_env` imports when it runs without a window."""
_SERVER = Path(__file__).with_name("official_server.py")
_START_LIMIT_S, _ANSWER_LIMIT_S = 180.0, 60.0
_LOG_TAIL = 800


class OfficialTable:
    """The official environment of one scene; implements `deer_sim.environment.Environment`.

    It runs in a child process, since a process can hold only one official environment, which may end the process.
    Where it is less careful than that protocol, this class makes up for it: each reset builds its world anew, as in a
    fresh process; actions are checked, clipped, and their gripper value made -1 or 1.
    """

    def __init__(
        self,
        scene: str = "D",
        data: Path | None = None,
        cameras: bool = True,
        exact: bool = False,
        renderer: str = TINY,
    ) -> None:
        """Starts the child process.

        Args:
            scene: 'A' to 'D'.
            data: git clone of calvin_env; None: the one that the variable CALVIN_DATA names, or else it is installed.
            cameras: whether time steps carry pictures.
            exact: takes actions beyond [-1, 1] as they are, for replays of recordings.
            renderer: TINY or EGL of `deer_sim.engine.cameras`.

        The interpreter that the variable CALVIN_PYTHON names, or else this one, must have what calvin_env imports.

        Raises:
            SimulatorError: if the package can't be started.
        """
        if data is None and os.environ.get("CALVIN_DATA"):
            data = Path(os.environ["CALVIN_DATA"])
        if data is not None and not (data / "calvin_env" / "__init__.py").is_file():
            raise SimulatorError(
                f"{data} holds no package calvin_env; the official back end needs a git clone of "
                "https://github.com/mees/calvin_env, scene data alone won't do"
            )
        self._draws, self._exact, self._renderer = cameras, exact, renderer
        self._name = f"calvin:{scene}"
        self._steps = 0
        self._now: TimeStep | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the environment)
        ours, theirs = socket.socketpair()
        with theirs:
            self._child = subprocess.Popen(
                [os.environ.get("CALVIN_PYTHON", sys.executable), str(_SERVER), str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
            )
        self._pipe = Connection(ours.detach())
        self._pipe.send_bytes(
            json.dumps(
                {"root": None if data is None else str(data.resolve()), "scene": scene, "egl": renderer == EGL}
            ).encode()
        )
        facts = self._answer(_START_LIMIT_S, "could not be started")
        self._blocks = tuple(facts["blocks"])
        self._control_rate_hz = float(facts["control_rate_hz"])

    @property
    def spec(self) -> EnvironmentSpec:
        """Fixed facts."""
        renderer = self._renderer if self._draws else "none"
        return EnvironmentSpec(self._name, renderer, self._control_rate_hz, self._blocks, backend="calvin_env")

    def reset(
        self,
        seed: int | None = None,
        robot_obs: np.ndarray | None = None,
        scene_obs: np.ndarray | None = None,
    ) -> TimeStep:
        """Starts an episode; see `deer_sim.environment.Environment.reset`.

        Without a state the blocks lie where the official code draws them from the seed, which is elsewhere than in our
        own environments.

        Raises:
            ConfigError: if a state has the wrong shape or values that are not finite.
        """
        robot = None if robot_obs is None else checked("robot_obs", robot_obs, PROPRIOCEPTION_SIZE).tolist()
        scene = None if scene_obs is None else checked("scene_obs", scene_obs, SCENE_OBS_SIZE)
        if scene is not None:
            # Lights that are neither 0 nor 1 make the official reset fail.
            scene[4:6] = scene[4:6] > 0.5
        values = self._ask(
            {"do": "reset", "seed": seed, "robot_obs": robot, "scene_obs": None if scene is None else scene.tolist()}
        )
        self._steps = 0
        self._now = self._time_step(values)
        return self.look()

    def step(self, action: np.ndarray, look: bool = True) -> TimeStep:
        """Runs one control step with a relative action (7,); a positive gripper value opens.

        Without `look` no picture is drawn.

        Raises:
            ConfigError: if the action is not finite or misshapen; nothing moves.
            SimulatorError: before the first reset, or if the child process has ended.
        """
        if self._now is None:
            raise SimulatorError("step was called before reset; call reset first")
        values = checked("action", action, ACTION_SIZE)
        if not self._exact:
            values = np.clip(values, -1.0, 1.0)
        answer = self._ask({"do": "step", "action": [*values[:6].tolist(), 1.0 if values[6] > 0.0 else -1.0]})
        self._steps += 1
        self._now = self._time_step(answer)
        return self.look() if look else self._now

    def look(self) -> TimeStep:
        """The present time step with its pictures, if time steps carry any.

        Raises:
            SimulatorError: before the first reset, or if the child process has ended.
        """
        if self._now is None:
            raise SimulatorError("look was called before reset; call reset first")
        if self._draws and self._now.rgb_static is None:
            rgb_static, rgb_gripper = self.pictures()
            self._now = replace(self._now, rgb_static=rgb_static, rgb_gripper=rgb_gripper)
        return self._now

    def pictures(self) -> tuple[np.ndarray, np.ndarray]:
        """What the static and the gripper camera see now, each (rows, columns, 3) uint8; also without `cameras`."""
        shapes = self._ask({"do": "pictures"})["shapes"]
        drawn = {
            name: np.frombuffer(self._pipe.recv_bytes(), np.uint8).reshape(shape) for name, shape in shapes.items()
        }
        return drawn["rgb_static"], drawn["rgb_gripper"]

    def close(self) -> None:
        """Ends the child process; a second call does nothing."""
        self._pipe.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request and returns its answer."""
        # Where the child has ended, the missing answer says how.
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(json.dumps(request).encode())
        return self._answer(_ANSWER_LIMIT_S, f"failed to {request['do']}")

    def _answer(self, limit_s: float, failure: str) -> dict[str, Any]:
        """Waits for an answer; raises SimulatorError if it is an error, or there is none."""
        try:
            answer = json.loads(self._pipe.recv_bytes()) if self._pipe.poll(limit_s) else None
        except (EOFError, OSError):
            answer = {"error": self._ending()}
        if answer is None:
            answer = {"error": f"no answer within {limit_s:g} s"}
        if "error" in answer:
            problem = f"the official environment {failure}: {answer['error']}"
            self.close()
            raise SimulatorError(problem + _remedy(problem, self._renderer))
        return answer

    def _ending(self) -> str:
        """How the child process has ended, with the last it said."""
        try:
            code = self._child.wait(timeout=5)
        except (subprocess.TimeoutExpired, OSError):
            code = None
        how = f"ended with status {code}" if code is None or code >= 0 else f"died of {signal.Signals(-code).name}"
        try:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip()[-_LOG_TAIL:]
        except ValueError:
            said = ""
        return f"its process {how}" + (f"; its last words: {said}" if said else "")

    def _time_step(self, values: dict[str, Any]) -> TimeStep:
        """An answer as a time step without pictures."""
        return TimeStep(
            rgb_static=None,
            rgb_gripper=None,
            robot_obs=np.array(values["robot_obs"]),
            scene_obs=np.array(values["scene_obs"]),
            state=SceneState(
                **{name: values[name] for name in ("slider", "drawer", "button", "switch", "lightbulb", "led")},
                blocks={colour: _block(block) for colour, block in values["blocks"].items()},
                robot_contacts=_contacts(values["robot_contacts"]),
            ),
            step=self._steps,
            time_s=self._steps / self._control_rate_hz,
        )


def _block(values: dict[str, Any]) -> BlockState:
    """A block's state from its plain form."""
    position, orientation, linear, angular = (np.array(part) for part in values["motion"])
    return BlockState(position, orientation, linear, angular, _contacts(values["contacts"]))


def _contacts(pairs: list[list[str]]) -> frozenset[Contact]:
    """Contacts from their plain form."""
    return frozenset((body, link) for body, link in pairs)


def _remedy(problem: str, renderer: str) -> str:
    """What to do about a failure of the official environment."""
    if "ModuleNotFoundError" in problem or "ImportError" in problem:
        return f". Install what it needs into its interpreter: pip install {PACKAGES}; see docs/calvin.md"
    if renderer == EGL:
        return (
            ". EGL must work for it: install libegl1, libegl-mesa0 and libgl1-mesa-dri (Debian's names), "
            "or use the TinyRenderer"
        )
    return ". See docs/calvin.md"
