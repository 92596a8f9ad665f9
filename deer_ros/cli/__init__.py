"""The `deer` command: wires policies, simulator and nodes together."""
