"""Quality-of-service profiles of the topics that are neither sensor data nor the default."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""A late subscriber gets the last value at once: states."""
COMMANDS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
"""Nothing is lost and nothing old is kept for later: actions and commands."""
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
"""For a subscriber that is slower than what comes in: the newest command, instead of a queue of old ones."""
SOUND = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
"""A second of sound in pieces of 20 ms: a gap in a word is a word lost."""
FRAMES = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
"""Sensor data without loss, for a simulator in lockstep, where a lost frame would cost time; a publisher that offers it
serves best-effort subscribers as well."""
