"""`deer security`: makes the keys and the permissions with which ROS 2's security (SROS 2) guards our graph."""

from __future__ import annotations

import argparse
from pathlib import Path

from deer_ros import graph

HELP = "make an SROS 2 keystore for our nodes: keys, certificates, and permissions with least privilege"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument("folder", type=Path, help="of the keystore; keep it off shared disks: it holds private keys")
    parser.add_argument("--bringup", default="arm", choices=list(graph.BRINGUPS), help="whose nodes get enclaves")
    parser.add_argument("--namespace", default="", help="that the nodes run in")
    parser.add_argument(
        "--driver-nodes", nargs="+", default=["driver"], metavar="NAME", help="names of the arm's and cameras' nodes"
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain that it is for (default: ROS_DOMAIN_ID, else 0)")
    parser.add_argument("--days", type=int, default=3650, help="how long new keys are valid")
    parser.add_argument(
        "--renew-permissions",
        action="store_true",
        help="write the permissions of an existing keystore anew, after an update; its keys are kept",
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes or renews the keystore and says how it is used."""
    from deer_ros.cli.up import domain_from_environment
    from deer_ros.security import keystore
    from deer_ros.security.enclaves import enclaves

    granted = enclaves(arguments.bringup, arguments.namespace, tuple(arguments.driver_nodes))
    domain_id = domain_from_environment() if arguments.domain_id is None else arguments.domain_id
    settings = keystore.KeystoreSettings(domain_id, arguments.days)
    make = keystore.renew if arguments.renew_permissions else keystore.create
    make(arguments.folder, granted, settings)
    print(f"{arguments.folder}, for ROS_DOMAIN_ID={domain_id}, holds these enclaves:")
    for enclave in granted:
        print(f"  {enclave.path}")
    print(f"turn it on with `deer up {arguments.bringup} --security {arguments.folder}`; docs/security.md says more")
    return 0
