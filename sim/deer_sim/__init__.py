"""Environments that train and score policies; knows of policies only through their interfaces."""
