"""Text to speech by several engines that work offline, behind one protocol."""
