"""Door, drawer, button, switch and lights: their joints, and the logic that turns the lights on and off."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_sim.playtable import table
from deer_sim.playtable.scene import BUTTON_RANGE_M, DRAWER_RANGE_M, SWITCH_RANGE_M, Scene

_FRICTION_N = 4.0
_BUTTON_SPRING_N = 4.0
_BULB_ON, _LED_ON, _OFF = (1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0), (1.0, 1.0, 1.0, 1.0)


class Fixtures:
    """The table's moving parts in one physics client.

    The button's rising edge (more than half way down) toggles the LED. The switch turns the bulb on when it is found
    above half of its travel, and off when it has been up and is found below, once in a control step.
    """

    def __init__(self, client: Any, body: int, scene: Scene) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient` in which the table is loaded as `body`."""
        self._client = client
        self.body = body
        self.link_names = {-1: "base_link"}
        joints: dict[str, int] = {}
        for index in range(client.getNumJoints(body)):
            info = client.getJointInfo(body, index)
            joints[info[1].decode()] = index
            self.link_names[index] = info[12].decode()
        links = {name: index for index, name in self.link_names.items()}
        self._bulb_link, self._led_link = links[table.BULB_LINK], links[table.LED_LINK]
        self._joints = [joints[name] for name in (table.SLIDER, table.DRAWER, table.BUTTON, table.SWITCH)]
        self._ranges = (scene.slider_range, DRAWER_RANGE_M, BUTTON_RANGE_M, SWITCH_RANGE_M)
        self.lightbulb = False
        self.led = False
        self._button_pressed = False
        self._switch_up = False
        slider, drawer, button, switch = self._joints
        for index in (slider, drawer, switch):
            client.setJointMotorControl2(body, index, client.VELOCITY_CONTROL, targetVelocity=0.0, force=_FRICTION_N)
        client.setJointMotorControl2(body, button, client.POSITION_CONTROL, targetPosition=0.0, force=_BUTTON_SPRING_N)

    def reset(self, positions: np.ndarray, lightbulb: bool, led: bool) -> None:
        """Puts slider, drawer, button and switch at `positions` (4,) m, at rest, and sets the lights.

        Positions are limited to the joints' travel. A bulb that is lit while the switch is down stays lit until the
        switch has been up and down again.
        """
        limited = np.clip(positions, 0.0, self._ranges)
        for index, position in zip(self._joints, limited, strict=True):
            self._client.resetJointState(self.body, index, position)
        self._button_pressed = bool(limited[2] > BUTTON_RANGE_M / 2)
        self._switch_up = False
        self._set_bulb(lightbulb)
        self._set_led(led)

    def positions(self) -> np.ndarray:
        """Slider, drawer, button and switch (4,) in m."""
        return np.array([state[0] for state in self._client.getJointStates(self.body, self._joints)])

    def update(self) -> None:
        """Applies the light logic; called once in a control step, after the physics."""
        _, _, button, switch = self.positions()
        pressed = bool(button > BUTTON_RANGE_M / 2)
        if pressed and not self._button_pressed:
            self._set_led(not self.led)
        self._button_pressed = pressed
        switch_up = bool(switch > SWITCH_RANGE_M / 2)
        if switch_up != self._switch_up:
            self._set_bulb(switch_up)
        self._switch_up = switch_up

    def _set_bulb(self, lit: bool) -> None:
        self.lightbulb = lit
        self._client.changeVisualShape(self.body, self._bulb_link, rgbaColor=_BULB_ON if lit else _OFF)

    def _set_led(self, lit: bool) -> None:
        self.led = lit
        self._client.changeVisualShape(self.body, self._led_link, rgbaColor=_LED_ON if lit else _OFF)
