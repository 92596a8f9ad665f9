"""Writes URDF text from a few kinds of solids; pybullet takes articulated bodies only from such files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Vector = tuple[float, float, float]
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Box:
    """A box between two corners of the link's frame (m)."""

    low: Vector
    high: Vector
    colour: Colour = (0.8, 0.8, 0.8)

    def geometry(self) -> tuple[str, Vector]:
        """URDF geometry and the place of its centre."""
        size = " ".join(f"{high - low:.6g}" for low, high in zip(self.low, self.high, strict=True))
        centre = tuple((low + high) / 2 for low, high in zip(self.low, self.high, strict=True))
        return f'<box size="{size}"/>', (centre[0], centre[1], centre[2])


@dataclass(frozen=True)
class Sphere:
    """A sphere (m)."""

    centre: Vector
    radius: float
    colour: Colour = (0.8, 0.8, 0.8)

    def geometry(self) -> tuple[str, Vector]:
        """URDF geometry and the place of its centre."""
        return f'<sphere radius="{self.radius:.6g}"/>', self.centre


@dataclass(frozen=True)
class Mesh:
    """A mesh file in the link's frame; as a collision shape it stands for its convex hull."""

    file: Path
    colour: Colour = (0.8, 0.8, 0.8)

    def geometry(self) -> tuple[str, Vector]:
        """URDF geometry and the place of its origin."""
        return f'<mesh filename="{self.file.as_posix()}"/>', (0.0, 0.0, 0.0)


Solid = Box | Sphere | Mesh


@dataclass(frozen=True)
class Link:
    """A rigid part.

    Attributes:
        name: unique in its file.
        solids: what it touches with.
        mass: in kg; 0 fixes a base to the world.
        drawn: what it looks like, where that is not `solids`.
    """

    name: str
    solids: Sequence[Solid]
    mass: float
    drawn: Sequence[Solid] | None = None

    def text(self) -> str:
        """URDF of the link."""
        parts = [
            f'<link name="{self.name}"><inertial><mass value="{self.mass}"/>'
            '<inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'
        ]
        shown = self.solids if self.drawn is None else self.drawn
        for kind, solids in (("visual", shown), ("collision", self.solids)):
            for index, solid in enumerate(solids):
                geometry, place = solid.geometry()
                xyz = " ".join(f"{value:.8g}" for value in place)
                material = ""
                if kind == "visual":
                    rgb = " ".join(f"{value:.4g}" for value in solid.colour)
                    material = f'<material name="{self.name}_{index}"><color rgba="{rgb} 1"/></material>'
                parts.append(f'<{kind}><origin xyz="{xyz}"/><geometry>{geometry}</geometry>{material}</{kind}>')
        parts.append("</link>")
        return "\n".join(parts)


@dataclass(frozen=True)
class Joint:
    """Joins `child` to `parent`: fixed, or prismatic along `axis` (of the child's frame) between `limits` in m."""

    name: str
    parent: str
    child: str
    origin: Vector
    roll_rad: float = 0.0
    axis: Vector | None = None
    limits: tuple[float, float] = field(default=(0.0, 0.0))

    def text(self) -> str:
        """URDF of the joint."""
        xyz = " ".join(f"{value:.8g}" for value in self.origin)
        kind = "fixed" if self.axis is None else "prismatic"
        axis = " ".join(f"{value:.8g}" for value in self.axis or (0.0, 0.0, 0.0))
        return (
            f'<joint name="{self.name}" type="{kind}"><origin xyz="{xyz}" rpy="{self.roll_rad:.12g} 0 0"/>'
            f'<parent link="{self.parent}"/><child link="{self.child}"/><axis xyz="{axis}"/>'
            f'<limit lower="{self.limits[0]:.8g}" upper="{self.limits[1]:.8g}" effort="0" velocity="0"/></joint>'
        )


def robot_text(name: str, links: Sequence[Link], joints: Sequence[Joint]) -> str:
    """A whole URDF file."""
    parts = [link.text() for link in links] + [joint.text() for joint in joints]
    return f'<?xml version="1.0"?>\n<robot name="{name}">\n' + "\n".join(parts) + "\n</robot>\n"
