"""Our own play table: a Panda arm at a desk with a drawer, a sliding door, a button, a switch, two lights and three blocks."""
