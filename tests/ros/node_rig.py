"""A node in a thread of the test and a client beside it, which the rigs of the nodes share; and how tests wait."""

import contextlib
import threading
import time

import rclpy
from lifecycle_msgs.msg import Transition
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter

from deer_ros.bringup import free_domain_id
from deer_ros.client import StackClient

DEADLINE_S = 10.0
JOINTS = (-1.21779206, 1.03987646, 2.11978261, -2.34205014, -0.87015947, 1.64119353, 0.55344866)
"""Angles (rad) of an arm over the table."""


def wait(condition, deadline_s=DEADLINE_S):
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


def arguments(settings):
    """Parameters as the command line of a node has them."""
    values = {name: str(value).lower() if isinstance(value, bool) else value for name, value in settings.items()}
    return ["--ros-args", *(item for name, value in values.items() for item in ("-p", f"{name}:={value}"))]


class NodeRig:
    """Runs the node that `make` makes, with these parameters, on a ROS domain of its own.

    `connect` is where a rig makes publishers and subscriptions of its own.
    """

    def __init__(self, make, settings):
        domain_id = free_domain_id()
        rclpy.init(args=arguments(settings), domain_id=domain_id)
        self.node = self.client = None
        try:
            self.node = make()
            self.name = self.node.get_name()
            self.executor = SingleThreadedExecutor()
            self.executor.add_node(self.node)
            self.thread = threading.Thread(target=self._spin, daemon=True)
            self.thread.start()
            self.client = StackClient(domain_id)
            self.connect(self.client.node)
        except BaseException:
            self.close()
            raise

    def connect(self, node):
        """Called with the client's node, once both run."""

    def _spin(self):
        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def close(self):
        if self.client is not None:
            self.client.close()
            self.executor.shutdown()
            self.thread.join(DEADLINE_S)
        if self.node is not None:
            self.node.destroy_node()
        rclpy.try_shutdown()

    def change(self, *transitions):
        for transition in transitions:
            self.client.change_state(self.name, transition, DEADLINE_S)

    def activate(self):
        self.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)

    def set(self, **values):
        """Changes parameters as `ros2 param set` does; the reason of the first refusal, or nothing."""
        return set_parameters(self.client, self.name, **values)


def set_parameters(client, name, **values):
    """Changes parameters of a node as `ros2 param set` does; the reason of the first refusal, or nothing."""
    service = client.node.create_client(SetParameters, f"{name}/set_parameters")
    try:
        wait(service.service_is_ready)
        request = SetParameters.Request()
        request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        results = client.wait_for(service.call_async(request), DEADLINE_S, "parameters").results
    finally:
        client.node.destroy_client(service)
    return next((result.reason for result in results if not result.successful), "")
