"""Door, drawer, button, switch and lights: their joints, and the logic that turns the lights on and off."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_sim.engine.scene import FixtureSettings, Rgba

_FRICTION_N = 4.0
_BUTTON_SPRING_N = 4.0
_OFF = (1.0, 1.0, 1.0, 1.0)


class Fixtures:
    """The table's moving parts in one physics client.

    The button's rising edge (more than half way down) toggles the LED. The switch turns the bulb on when it is found
    above half of its travel, and off when it has been up and is found below, once in a control step.
    """

    def __init__(self, client: Any, body: int, settings: FixtureSettings) -> None:
        """`client` is a `pybullet_utils.bullet_client.BulletClient` in which the table is loaded as `body`."""
        self._client = client
        self.body = body
        self._settings = settings
        self.link_names = {-1: "base_link"}
        joints: dict[str, int] = {}
        limits: dict[str, tuple[float, float]] = {}
        for index in range(client.getNumJoints(body)):
            info = client.getJointInfo(body, index)
            name = info[1].decode()
            joints[name], limits[name] = index, info[8:10]
            self.link_names[index] = info[12].decode()
        links = {name: index for index, name in self.link_names.items()}
        self._bulb_link, self._led_link = links[settings.bulb_link], links[settings.led_link]
        self._joints = [joints[name] for name in settings.joints]
        self._lowest, self._highest = np.array([limits[name] for name in settings.joints]).T
        _, _, self._button_middle, self._switch_middle = ((self._lowest + self._highest) / 2).tolist()
        self.lightbulb = False
        self.led = False
        self._button_pressed = False
        self._switch_up = False
        slider, drawer, button, switch = self._joints
        for index in (slider, drawer):
            self._hold(index)
        client.setJointMotorControl2(
            body, button, client.POSITION_CONTROL, targetPosition=settings.initial[2], force=_BUTTON_SPRING_N
        )
        self._hold(switch)

    def reset(self, positions: np.ndarray, lightbulb: bool, led: bool, official: bool) -> None:
        """Puts slider, drawer, button and switch at `positions` (4,) m, at rest, and sets the lights.

        A bulb that is lit while the switch is down stays lit until the switch has been up and down again. `official`:
        see `deer_sim.engine.scene.Scene.official_reset`.
        """
        taken = positions if official else np.clip(positions, self._lowest, self._highest)
        for index, position in zip(self._joints, taken, strict=True):
            self._client.resetJointState(self.body, index, position)
        self._button_pressed = not official and bool(taken[2] > self._button_middle)
        self._switch_up = False
        self._set_bulb(lightbulb)
        self._set_led(led)

    def positions(self) -> np.ndarray:
        """Slider, drawer, button and switch (4,) in m."""
        return np.array([state[0] for state in self._client.getJointStates(self.body, self._joints)])

    def update(self) -> None:
        """Applies the light logic; called once in a control step, after the physics."""
        _, _, button, switch = self.positions()
        pressed = bool(button > self._button_middle)
        if pressed and not self._button_pressed:
            self._set_led(not self.led)
        self._button_pressed = pressed
        switch_up = bool(switch > self._switch_middle)
        if switch_up != self._switch_up:
            self._set_bulb(switch_up)
        self._switch_up = switch_up

    def _hold(self, joint: int) -> None:
        """Gives a joint friction; it stays where it is left."""
        self._client.setJointMotorControl2(
            self.body, joint, self._client.VELOCITY_CONTROL, targetVelocity=0.0, force=_FRICTION_N
        )

    def light_colours(self) -> dict[tuple[int, int], Rgba]:
        """What colour each light has now, by body and link."""
        bulb = self._settings.bulb_colour if self.lightbulb else _OFF
        led = self._settings.led_colour if self.led else _OFF
        return {(self.body, self._bulb_link): bulb, (self.body, self._led_link): led}

    def show_lights(self) -> None:
        """Gives both lights the colours of their states."""
        for link in (self._bulb_link, self._led_link):
            self._colour(link)

    def _set_bulb(self, lit: bool) -> None:
        self.lightbulb = lit
        self._colour(self._bulb_link)

    def _set_led(self, lit: bool) -> None:
        self.led = lit
        self._colour(self._led_link)

    def _colour(self, link: int) -> None:
        """Gives a light the colour of its state."""
        self._client.changeVisualShape(self.body, link, rgbaColor=self.light_colours()[self.body, link])
