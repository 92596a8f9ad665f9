"""Speech to text: finding utterances in running sound, and engines that tell what was said, behind one protocol."""
