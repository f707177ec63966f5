"""One client and one poll per cluster for everything in an event loop."""
