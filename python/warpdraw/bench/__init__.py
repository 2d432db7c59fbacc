"""Measurements that ship with the package: one harness, the peers, and what `warpdraw bench` runs."""
