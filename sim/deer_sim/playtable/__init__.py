"""Our own play table: a Panda arm, a desk with drawer, door, button, switch and lights, and three blocks."""
