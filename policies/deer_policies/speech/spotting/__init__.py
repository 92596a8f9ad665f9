"""The stop word: a small network that hears 'stop' in running sound, as soon as it has been said."""
