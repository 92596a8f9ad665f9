"""The one environment behind every scene: physics, arm, fixtures, blocks, contacts and cameras."""
