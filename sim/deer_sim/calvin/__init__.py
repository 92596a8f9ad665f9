"""CALVIN: its scenes and recordings, its evaluation protocol (Mees et al., RA-L 2022), its package as a back end."""
