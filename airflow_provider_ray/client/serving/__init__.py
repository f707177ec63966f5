"""Waiting for a Serve application, and calling it."""
