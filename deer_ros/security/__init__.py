"""SROS 2 for our graph: enclaves with least privilege, their keys, and how processes are started within them."""
