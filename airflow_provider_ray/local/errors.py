"""What goes wrong with the clusters of this host."""


class LocalClusterError(Exception):
    """A local cluster cannot be started, read or stopped."""
