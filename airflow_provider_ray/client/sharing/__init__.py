"""One client and one poll per cluster for everybody in an event loop."""
