"""`deer up`: starts a bring-up's nodes as processes, on machines without `ros2 launch`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from deer_policies.errors import ConfigError
from deer_ros import graph, network

HELP = "start the nodes and keep them running until Ctrl-C"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments; those of the nodes come from the description of the graph."""
    parser.add_argument("bringup", nargs="?", default="simulation", choices=list(graph.BRINGUPS), help="what to start")
    parser.add_argument("--params", type=Path, help="parameter file instead of the packaged one")
    parser.add_argument("--domain-id", type=int, help="ROS domain to join (default: ROS_DOMAIN_ID, else 0)")
    parser.add_argument("--logs", type=Path, help="folder for the nodes' output, instead of the terminal")
    parser.add_argument(
        "--network", default=network.LOOPBACK, choices=network.NETWORKS, help=network.NETWORK_DESCRIPTION
    )
    parser.add_argument("--security", type=Path, help="keystore of `deer security`; nodes then talk only as it permits")
    for argument in _arguments():
        parser.add_argument(f"--{argument.name}", help=argument.description + " (default: from the parameter file)")


def domain_from_environment() -> int:
    """ROS_DOMAIN_ID, or 0. Raises ConfigError if it is no number."""
    text = os.environ.get("ROS_DOMAIN_ID", "0")
    if not text.isdecimal():
        raise ConfigError(f"ROS_DOMAIN_ID is {text!r}; it must be a number from 0 to 232: set it anew or unset it")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Starts everything, waits, and stops everything."""
    from deer_ros.bringup import Stack, StackConfig

    config = StackConfig(
        bringup=arguments.bringup,
        parameter_file=arguments.params,
        overrides=overrides(arguments),
        domain_id=domain_from_environment() if arguments.domain_id is None else arguments.domain_id,
        log_folder=arguments.logs,
        network=arguments.network,
        security=arguments.security,
        respawn=True,
    )
    print(f"starting {', '.join(node.name for node in config.nodes)} on ROS_DOMAIN_ID={config.domain_id}", flush=True)
    with Stack(config) as stack:
        print(f"{graph.BRINGUPS[config.bringup].description}: ready; Ctrl-C ends it", flush=True)
        try:
            stack.wait()
        except KeyboardInterrupt:
            print("stopping", flush=True)
    return 0


def overrides(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Parameters given on the command line, by node. Those of another bring-up raise ConfigError there."""
    given: dict[str, dict[str, Any]] = {}
    for argument in _arguments():
        text = getattr(arguments, argument.name)
        if text is not None:
            given.setdefault(argument.node, {})[argument.name] = argument.parse(text)
    return given


def _arguments() -> list[graph.Argument]:
    """Every argument of any bring-up, once."""
    return list(dict.fromkeys(argument for bringup in graph.BRINGUPS.values() for argument in bringup.arguments))
