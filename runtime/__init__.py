"""Runs a Program: devices, solver loop, data sources, snapshots, monitoring."""
