"""Our own table, embedded: scene, robot, objects and renderer, with nothing to download."""
