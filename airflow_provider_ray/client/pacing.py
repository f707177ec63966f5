"""What paces requests to clusters, in one place; in seconds unless the comment gives another unit.

Read them as ``pacing.NAME`` at the moment of use; a name imported from here would miss a change. Those named in
:mod:`airflow_provider_ray.hooks.options` are options in the section ``[ray]`` of Airflow's configuration.
"""

from __future__ import annotations

# Any request (client/api/http.py, client/api/retry.py)
FAULT_BUDGET_SECONDS = 120.0  # for which passing faults are retried: what a head needs to restart, with some to spare
FIRST_PAUSE_SECONDS = 1.0  # before the second try, plus a random part as long; the pauses then double up to ten seconds
REASON_SECONDS = 5.0  # for the body of an error: its status is known without it
SLOWEST_UPLOAD_BYTES_PER_SECOND = 256 * 1024  # bytes: the time for an upload grows with its size
DETAIL_SECONDS = 5.0  # after which a part of a capacity is unknown: a slow list of jobs must not hide the rest

# Waiting for a job (client/jobs/waiting.py, client/jobs/submission.py)
FIRST_INTERVAL_SECONDS = 1.0  # from one look to the next in the first minute, when most short jobs end
QUICK_SECONDS = 60.0  # that minute; from then on each interval is half as long again, up to poll_interval
SHORTEST_INTERVAL_SECONDS = 0.1  # whatever a caller asks for
SECOND_LOOK_SECONDS = 3.0  # after a 404: a head that is starting, or an ingress in front of it, may speak too early
SEARCHED_AT_ONCE = 100  # records of a list: searching more in one go would hold up everyone else in the event loop

# Nodes, whose state tells whether a job that Ray calls RUNNING can be running (client/api/node_health.py)
NODES_LOOK_SECONDS = 30.0  # from one look to the next: nodes come and go in minutes
NODES_LOOKS_NEEDED = 2  # looks that miss a node before its job is lost: a node may be younger than a look

# Stopping jobs (client/jobs/waiting.py, jobs, triggers/job.py)
STOP_CONFIRM_SECONDS = 15.0  # for a job to end after a stop request; Ray sends SIGKILL after three by default
STOP_LOOK_SECONDS = 0.3  # from one look at a job that is stopping to the next
LOST_STOP_SECONDS = 5.0  # for a job that was given up: its end may never come
LAST_STOP_SECONDS = 5.0  # for jobs of earlier attempts when their task ends
TASK_KILL_SECONDS = 4.0  # Airflow kills the process of a task five seconds after on_kill began
TRIGGER_KILL_SECONDS = 20.0  # of the 30 in [triggerer] on_kill_timeout: half to ask Airflow, half to ask Ray
STOP_GRACE_SECONDS = 1.0  # on top of a limit: a cluster that accepts connections and stays silent holds up no kill

# Deciding about earlier jobs (jobs/earlier.py)
EARLIER_JOBS_SECONDS = 10.0  # after which a cluster is passed over if there is another one to go to

# The driver log (client/jobs/driver_log.py, client/jobs/log_relay.py, client/api/jobs.py)
LOG_LINES_PER_SECOND = 1000  # lines: Airflow's UI cannot show more for long
LOG_BYTES_PER_SECOND = 1024 * 1024  # bytes, likewise
LOG_BURST_SECONDS = 10  # for which a log may exceed these two
LOG_GATHERED_SECONDS = 100  # what gathered since the last read may be as much as this time allows
LOG_LAST_LINES = 20  # lines that are shown whatever the limits say
LOG_FOLLOWED_BYTES = 32 * 1024 * 1024  # bytes of a log that are followed: Ray has no offset, so each read starts at 0
LOG_READING_SHARE = 0.05  # share of the time that reading a log may take
LOG_MARKING_SHARE = 0.2  # share of the time that storing the position may take
LOG_FINAL_SECONDS = 15.0  # for which the last read of a log is retried
LOG_TURN_SECONDS = 300.0  # for the last read to get its turn where the logs of others hang
LOG_LINES_AT_ONCE = 100  # lines: one takes some 50 microseconds to show, and others in the event loop wait
LOGS_AT_ONCE = 50  # logs read at a time: half of a client's connections, and of what Ray's state API answers at once

# The task log on its way through Airflow (task_log, triggers)
LOG_WINDOW_BYTES = 96 * 1024  # bytes not read by Airflow: its socket takes some 200 KiB, then writers block the loop
LOG_LITTLE_BYTES = 4096  # bytes, likewise, between two reads: Airflow reads them while it stores the position
LOG_MEASURE_SECONDS = 0.02  # from one measurement of that to the next: Airflow reads a few KiB in some 10 ms
LOG_DRAIN_SECONDS = 15.0  # for Airflow to read everything before a trigger fires
LOG_LAST_WORDS_SECONDS = 3.0  # likewise after a kill
LOG_POSITION_SECONDS = 2.0  # for Airflow to confirm the position: a triggerer that stops gets no answers any more
EARLIEST_EVENT_SECONDS = 2.0  # of a trigger: Airflow 3.3.2 fails some tasks that resume before their worker has left

# A limit of jobs per cluster (client/jobs/admission.py)
UNSEEN_SECONDS = 60.0  # after which a submitted job that no list shows no longer counts
PACKAGE_SECONDS = 240.0  # from one request for a waiting job's package to the next: Ray forgets it after ten minutes

# Waiting for Serve (client/serving/application.py)
ROUTE_LOOKS = 8  # looks at a route, each on a connection of its own, as any of several proxies may answer
PROXIES_LEARN_SECONDS = 10.0  # for the proxies of one cluster to learn of a route, one after the other

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
