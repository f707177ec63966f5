"""What paces requests to clusters, in one place; in seconds unless the comment gives another unit.

Read them as ``pacing.NAME`` at the moment of use; a name imported from here would miss a change.
"""

from __future__ import annotations

# Any answer that is shared or shown (client/sharing/answer.py)
SLOW_ANSWER_SHARE = 0.1  # share of the time: a list of jobs costs Ray 2.60 190 ms for every 1,000 records it has kept
RETRY_SECONDS = 6.0  # a first failure may be a hiccup, so the retry comes no later than this
FAILURES_TO_DISTRUST = 2  # failures in a row: one may be a hiccup, two mean that the last answer no longer holds

# States of jobs that tasks wait for (client/sharing/shared_jobs.py)
ROUND_SECONDS = 1.0  # from one round to the next: an end is noticed a second late at most
GATHER_SECONDS = 0.05  # a round starts this late, so that waits that begin together share it
FRESH_SECONDS = 0.5  # age up to which the list of a round also answers those who just missed it
LONGEST_PAUSE_SECONDS = 5.0  # after a slow list: a deadline or a stop that waits for its round must not wait long
LIST_FROM = 4  # jobs: asking for fewer one by one is cheaper than any list
LIST_COST_SECONDS = 60.0  # age up to which the cost or failure of a list still counts
WOKEN_AT_ONCE = 50  # waits: waking more in one go would hold up everyone else in the event loop

# Capacity and versions that waits share (client/sharing/shared_client.py)
CAPACITY_SECONDS = 2.0  # from one request to the next: Ray itself measures usage every five seconds
VERSION_SECONDS = 1.0  # from one request to the next: a sign of life, needed by all waits at once when a head restarts

# Looking at several clusters at once (client/clusters, clusters/selection.py)
ANSWER_SECONDS = 10.0  # after which a cluster counts as unavailable, whatever its own timeouts are
HICCUP_SECONDS = 2.0  # fault budget when a cluster is chosen: one reset connection does not make it unhealthy

# What the page "Ray" knows of a cluster (page/watch.py)
PAGE_REFRESH_SECONDS = 3.0  # from one request to a cluster to the next, and from one look of a browser to the next
PAGE_REQUEST_SECONDS = 5.0  # longest wait for an answer, whatever the connection says
PAGE_LONGEST_PAUSE_SECONDS = 60.0  # between two requests to a cluster that does not answer
PAGE_IDLE_SECONDS = 15.0  # after the last look of a browser, a cluster is no longer asked
PAGE_CONNECTION_SECONDS = 30.0  # age up to which a connection that works is not looked up again
PAGE_VERSION_SECONDS = 120.0  # from one request to the next: changes only when the head restarts
PAGE_NODES_SECONDS = 30.0  # from one request to the next: nodes come and go in minutes
PAGE_USAGE_SECONDS = 10.0  # from one request to the next: Ray itself measures usage every five seconds
PAGE_JOBS_SECONDS = 6.0  # from one request to the next: what users watch most
PAGE_SERVE_SECONDS = 30.0  # from one request to the next: applications change in minutes
PAGE_JOB_SECONDS = 30.0  # from one request to the next for a job that is not in the list of active ones
PAGE_JOBS_KEPT = 200  # jobs per cluster that are known by themselves; the oldest are forgotten

# All clusters of the page together (page/watcher.py)
PAGE_CONNECTIONS_SECONDS = 5.0  # age up to which the list of connections is used again
PAGE_REQUESTS_AT_ONCE = 64  # requests to clusters that answer
PAGE_SLOW_REQUESTS_AT_ONCE = 16  # requests to clusters that did not answer last time, which must not hold up the others
PAGE_LOOKUPS_AT_ONCE = 8  # threads: a secrets backend may hang
PAGE_STOPS_AT_ONCE = 16  # requests that stop a job
PAGE_REMEMBERED_SECONDS = 600.0  # a cluster that nobody looks at is shown as it was last seen for this long
PAGE_CLOSE_SECONDS = 10.0  # for the page's thread to end
