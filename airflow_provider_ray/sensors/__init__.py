"""Sensors: wait for a job, wait for clusters."""
