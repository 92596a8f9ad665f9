"""CALVIN's own scenes and its evaluation protocol (Mees et al., RA-L 2022)."""
