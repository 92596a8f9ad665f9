"""The checks of `deer doctor`: each looks at one thing and returns one finding."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from deer_policies.errors import DeerError
from deer_ros.cli.doctor.finding import Finding, Status, probe

WHEEL_PYTHON = (3, 11)
"""The CPython that the pinned ROS 2 wheels are built for."""
MEMORY_NEEDED_GIB = 1.0
"""All processes of `deer demo` took 0.75 GiB over 300 steps; it keeps the pictures, 0.14 GiB more for 1000 steps."""
DISK_NEEDED_GIB = 1.0
"""For runs; the virtual environment is there already."""
LARGEST_DOMAIN_ID = 101
"""Above it, ports fall among those that Linux gives to outgoing connections (ROS 2 docs, 'The ROS_DOMAIN_ID')."""
CPU_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
DEFAULT_POLICY = "deer-nano"
SETUP_REMEDY = "run `make setup`; on a ROS 2 machine, source its setup.bash and build the workspace with colcon"

RCLPY_PROBE = """
import rclpy
rclpy.init()
node = rclpy.create_node("deer_doctor")
print(rclpy.get_rmw_implementation_identifier())
node.destroy_node()
rclpy.shutdown()
"""
MESSAGES_PROBE = """
from deer_msgs.action import FollowInstruction
from deer_msgs.msg import ExitReport, PolicyAction, SafetyState
from deer_msgs.srv import SetBudget
from rclpy.type_support import check_for_type_support
for interface in (ExitReport, PolicyAction, SafetyState, SetBudget, FollowInstruction):
    check_for_type_support(interface)
print("messages, services and actions load")
"""
RENDER_PROBE = """
import pybullet
{load}
client = pybullet.connect(pybullet.DIRECT)
{plugin}
shape = pybullet.createVisualShape(pybullet.GEOM_BOX, halfExtents=[0.2] * 3, rgbaColor=[1, 0, 0, 1])
pybullet.createMultiBody(baseVisualShapeIndex=shape)
view = pybullet.computeViewMatrix([1, 1, 1], [0, 0, 0], [0, 0, 1])
projection = pybullet.computeProjectionMatrixFOV(60, 1, 0.01, 10)
pixels = pybullet.getCameraImage(64, 64, view, projection, renderer=pybullet.{renderer})[2]
assert pixels.reshape(-1, 4).std(axis=0).max() > 0, "the picture is empty"
print("{words}")
"""
TINY_PROBE = RENDER_PROBE.format(load="", plugin="", renderer="ER_TINY_RENDERER", words="PyBullet TinyRenderer draws")
EGL_PROBE = RENDER_PROBE.format(
    load="import importlib.util\norigin = importlib.util.find_spec('eglRenderer').origin",
    plugin="assert pybullet.loadPlugin(origin, '_eglRendererPlugin') >= 0, 'the EGL plugin does not load'",
    renderer="ER_BULLET_HARDWARE_OPENGL",
    words="draws",
)


def check_python() -> Finding:
    """The interpreter against the binary interface of the ROS 2 wheels."""
    here = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    wanted = ".".join(map(str, WHEEL_PYTHON))
    if sys.implementation.name == "cpython" and sys.version_info[:2] == WHEEL_PYTHON:
        return Finding("python", Status.OK, here)
    return Finding(
        "python",
        Status.NOTE,
        f"{here}; the pinned ROS 2 wheels are built for CPython {wanted}",
        f"run `make setup PYTHON=python{wanted}`; with an installed ROS 2 of your own, its Python is right",
    )


def check_rclpy() -> Finding:
    """Whether a ROS 2 node can be made, and over which middleware."""
    result = probe(RCLPY_PROBE)
    if result.succeeded:
        return Finding("ros 2", Status.OK, f"rclpy makes a node over {result.output}")
    wanted = os.environ.get("RMW_IMPLEMENTATION")
    if wanted:
        remedy = f"RMW_IMPLEMENTATION is {wanted!r}: install that middleware, or unset it to take the default"
        return Finding("ros 2", Status.BROKEN, result.output, remedy)
    return Finding("ros 2", Status.BROKEN, result.output, SETUP_REMEDY)


def check_messages() -> Finding:
    """Whether deer_msgs is built, with the binary support of every interface."""
    result = probe(MESSAGES_PROBE)
    if result.succeeded:
        return Finding("deer_msgs", Status.OK, result.output)
    return Finding(
        "deer_msgs",
        Status.BROKEN,
        result.output,
        "run `pip install -c constraints.txt ./msgs`, or `colcon build` on ROS 2",
    )


def check_network() -> Finding:
    """Which machines ROS 2 nodes would find each other on."""
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    if not domain.isdecimal() or int(domain) > LARGEST_DOMAIN_ID:
        return Finding(
            "ros network",
            Status.BROKEN,
            f"ROS_DOMAIN_ID is {domain!r}",
            f"export ROS_DOMAIN_ID as a number from 0 to {LARGEST_DOMAIN_ID}, or unset it",
        )
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    detail = f"domain {domain}, discovery range {reach}"
    if reach == "LOCALHOST":
        return Finding("ros network", Status.OK, detail)
    return Finding(
        "ros network",
        Status.NOTE,
        f"{detail}; `deer demo` and `deer up` stay on this machine, nodes that you start by hand do not",
        "export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST, unless other machines shall take part",
    )


def check_renderer() -> Finding:
    """Whether the simulator can draw its cameras."""
    result = probe(TINY_PROBE)
    if result.succeeded:
        return Finding("renderer", Status.OK, result.output)
    return Finding("renderer", Status.BROKEN, result.output, "run `make setup`; it installs pybullet")


def check_egl() -> Finding:
    """Whether PyBullet can draw through EGL, which looks more like CALVIN's own data."""
    result = probe(EGL_PROBE)
    if result.succeeded:
        drawn_by = re.search(r"GL_RENDERER=(.*)", result.output)
        return Finding(
            "renderer egl", Status.OK, f"PyBullet draws through EGL: {drawn_by[1] if drawn_by else 'unnamed'}"
        )
    return Finding(
        "renderer egl",
        Status.NOTE,
        f"not usable ({result.output}); the simulator draws with TinyRenderer",
        "needed only for policies trained on CALVIN's data: install libegl1 libegl-mesa0 libgl1-mesa-dri or a driver",
    )


def check_video() -> Finding:
    """Whether films can be written."""
    try:
        av = importlib.import_module("av")
    except ImportError as error:
        return Finding("video", Status.BROKEN, str(error), SETUP_REMEDY)
    if "libx264" not in av.codecs_available:
        return Finding(
            "video", Status.BROKEN, f"PyAV {av.__version__} lacks libx264", "run `pip install --force-reinstall av`"
        )
    return Finding("video", Status.OK, f"PyAV {av.__version__} writes H.264")


def check_torch() -> Finding:
    """PyTorch, and what this processor offers it."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        return Finding("torch", Status.BROKEN, str(error), SETUP_REMEDY)
    features = cpu_features()
    known = ", ".join(feature for feature in CPU_FEATURES if feature in features) or "no vector extensions that we know"
    detail = f"{torch.__version__}, {torch.get_num_threads()} threads; processor: {known}"
    if {"avx512_bf16", "amx_bf16"} & features:
        return Finding("torch", Status.OK, f"{detail}; training in bfloat16 is fast here")
    return Finding(
        "torch",
        Status.NOTE,
        f"{detail}; trains in float32, which is slower",
        "running is fine; train on a processor with AVX-512 BF16 or AMX, or on a GPU",
    )


def check_gpu() -> Finding:
    """Whether PyTorch sees an accelerator."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return Finding("gpu", Status.NOTE, "unknown without torch", SETUP_REMEDY)
    if torch.cuda.is_available():
        gib = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Finding("gpu", Status.OK, f"{torch.cuda.get_device_name(0)}, {gib:.0f} GiB")
    if shutil.which("nvidia-smi"):
        return Finding(
            "gpu",
            Status.NOTE,
            f"this machine has an NVIDIA driver, but torch {torch.__version__} cannot use it",
            "install a CUDA build of torch (https://pytorch.org/get-started/locally)",
        )
    return Finding(
        "gpu", Status.NOTE, "none", "deer-nano runs in real time on the processor; policies of 3B and more need one"
    )


def check_processors() -> Finding:
    """How many processors this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    load = os.getloadavg()[0]
    detail = f"{count} processors, load {load:.1f}"
    if count < 2:
        return Finding(
            "processors", Status.NOTE, detail, "the simulation runs slower than real time; give it 2 processors"
        )
    if load > count:
        return Finding(
            "processors", Status.NOTE, detail, "other programs keep this machine busy; latencies will look worse"
        )
    return Finding("processors", Status.OK, detail)


def check_memory() -> Finding:
    """Free main memory against what the stack takes."""
    free = available_memory_gib()
    if free is None:
        return Finding(
            "memory", Status.NOTE, "unknown on this system", f"see to it that {MEMORY_NEEDED_GIB:g} GiB are free"
        )
    detail = f"{free:.1f} GiB free; the demo takes about {MEMORY_NEEDED_GIB:g}"
    if free < MEMORY_NEEDED_GIB:
        return Finding("memory", Status.BROKEN, detail, "close other programs")
    return Finding("memory", Status.OK, detail)


def check_disk() -> Finding:
    """Free space where runs are written."""
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    detail = f"{free:.1f} GiB free in {Path.cwd()}"
    if free < DISK_NEEDED_GIB:
        return Finding("disk", Status.BROKEN, detail, f"free {DISK_NEEDED_GIB:g} GiB, or run from another folder")
    return Finding("disk", Status.OK, detail)


def check_checkpoint() -> Finding:
    """Whether the bundled policy is there and loads."""
    remedy = f"restore policies/deer_policies/checkpoints/{DEFAULT_POLICY}.safetensors from the repository"
    try:
        from deer_policies.deer.checkpoint import load_policy

        info = load_policy(DEFAULT_POLICY).info
    except ImportError as error:
        return Finding("checkpoint", Status.BROKEN, str(error), SETUP_REMEDY)
    except DeerError as error:
        return Finding("checkpoint", Status.BROKEN, str(error), remedy)
    layers = ", ".join(str(layer + 1) for layer in info.exit_layers)
    return Finding("checkpoint", Status.OK, f"{info.name} {info.weights_sha256[:12]}, exits after layers {layers}")


def cpu_features() -> frozenset[str]:
    """Features that the Linux kernel reports of the first processor; empty on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def available_memory_gib() -> float | None:
    """Memory that programs can still take, in GiB; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) / 2**20
    return None


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_rclpy,
    check_messages,
    check_network,
    check_renderer,
    check_egl,
    check_video,
    check_torch,
    check_gpu,
    check_processors,
    check_memory,
    check_disk,
    check_checkpoint,
)
