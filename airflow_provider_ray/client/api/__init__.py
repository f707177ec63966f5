"""Requests to a cluster: one method per route of Ray's API, and the checked values that come back."""
