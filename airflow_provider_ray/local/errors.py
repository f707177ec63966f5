"""Errors of clusters on this host."""


class LocalClusterError(Exception):
    """A local cluster cannot be started, read or stopped."""
