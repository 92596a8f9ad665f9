"""`deer talk`: somebody talks to the robot in simulation, over real ROS 2; writes the sound and a report."""

from deer_ros.cli.talk.command import HELP, configure, run

__all__ = ["HELP", "configure", "run"]
