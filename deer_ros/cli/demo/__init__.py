"""`deer demo`: a chain of five instructions over real ROS 2, with a film and a report."""

from deer_ros.cli.demo.command import HELP, configure, run

__all__ = ["HELP", "configure", "run"]
