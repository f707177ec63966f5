"""A Ray dashboard and its Serve proxy as real HTTP servers on loopback, with scripted jobs and faults.

Status codes and texts are Ray's own; the contract suite runs the same tests on this and on real clusters.
"""

from tests.fake_dashboard.server import FakeDashboard
from tests.fake_dashboard.state import NODE_ID, Application, Fault, Job, Outcome, Recorded

__all__ = ["NODE_ID", "Application", "FakeDashboard", "Fault", "Job", "Outcome", "Recorded"]
