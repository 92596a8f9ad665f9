"""The fault campaign: things go wrong while the arm moves, and how long it takes to hold is measured."""
