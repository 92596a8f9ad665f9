"""`deer doctor`: is this machine ready, and if not, what to do."""

from deer_ros.cli.doctor.command import HELP, configure, run

__all__ = ["HELP", "configure", "run"]
