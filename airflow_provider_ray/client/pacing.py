"""Everything that paces requests to clusters, in one place; in seconds unless the comment gives another unit.

Read them as ``pacing.NAME`` at the moment of use; a name imported from here would miss a change. Those named in
:mod:`airflow_provider_ray.hooks.options` are options in the section ``[ray]`` of Airflow's configuration.
"""

from __future__ import annotations

# Any request (client/api/http.py, client/api/retry.py, client/api/capacity.py)
FAULT_BUDGET_SECONDS = 120.0  # for which transient faults are retried: a head needs less than that to restart
AUTH_BUDGET_SECONDS = 300.0  # likewise for credentials that were accepted before: secrets take minutes to spread
LOOK_UP_SECONDS = 2.0  # between two look-ups of rejected credentials, for everyone who shares a client
LOOK_UP_LIMIT_SECONDS = 5.0  # after which such a look-up has failed: everyone who shares the client waits for it
REJECTION_SECONDS = 30.0  # without a look-up, after which the next rejection is new to the log
FIRST_PAUSE_SECONDS = 1.0  # before the second try, plus a random part of up to as much; then the pauses double
LAST_PAUSE_SECONDS = 10.0  # the longest pause between two tries, without its random part
LEAST_TOLD_SECONDS = 5.0  # shortest budget whose use is worth a line in the task log
READ_TIMEOUTS_PER_REQUEST = 10  # read timeouts that an entire request may take: an answer that trickles in must end
REASON_SECONDS = 5.0  # for the body of an error, whose status is known without it
SLOWEST_UPLOAD_BYTES_PER_SECOND = 256 * 1024  # bytes: the time for an upload grows with its size
LIST_READ_TIMEOUTS = 4  # that a list of jobs may take to begin: Ray 2.60 needs 0.2-0.5 ms for each record it has kept
NAME_SECONDS = 10.0  # for which the addresses of a host name are kept, as aiohttp does
DETAIL_SECONDS = 5.0  # after which a part of a capacity is unknown: a slow list of jobs must not hide the rest

# What an answer may hold, in bytes, after decompression: decoded, it may take a dozen times as much memory (client/api)
ANSWER_BYTES = 1024 * 1024  # of an answer that is a few values
RECORD_BYTES = 4 * 1024 * 1024  # of a job: 1 MiB that it was submitted with, and a message of 20,000 characters
USAGE_BYTES = 2 * 1024 * 1024  # of the usage: a line for each resource and each shape of demand
NODES_BYTES = 16 * 1024 * 1024  # of the nodes: 10,000 of them with 1.6 KB each
SERVE_BYTES = 16 * 1024 * 1024  # of Serve's state: 30,000 replicas with 500 bytes each
LIST_BYTES = 64 * 1024 * 1024  # of a list of jobs: 100,000 of them with 600 bytes each
LIST_RECORDS = 250_000  # jobs in such a list: Ray writes 300 bytes at least for each
DECODED_AT_ONCE_BYTES = 256 * 1024  # of a longer answer: decoding a MiB holds up all threads for up to 150 ms

# Uploading a working_dir (client/jobs/packaging.py)
UPLOAD_LOCK_SECONDS = 0.05  # between two tries to get the lock on an upload, which other processes may hold

# Waiting for a job, and the intervals of all other waits (client/jobs, client/serving/application.py)
FIRST_INTERVAL_SECONDS = 1.0  # between two polls in the first minute, in which most short jobs end
QUICK_SECONDS = 60.0  # that minute; after it, each interval is half as long again as the last, up to poll_interval
SHORTEST_INTERVAL_SECONDS = 0.1  # whatever the caller asks for
SECOND_LOOK_SECONDS = 3.0  # between two requests after a 404, which a starting head or ingress may send too early
SEARCHED_AT_ONCE = 100  # records of a list: searching more in one go would delay everyone else in the event loop

# Nodes, whose state tells whether a RUNNING job can be running (client/api/node_health.py, client/jobs/waiting.py)
NODES_LOOK_SECONDS = 30.0  # between two checks: nodes come and go in minutes
NODES_ANSWER_SECONDS = 2.0  # for a wait to hold out for a check; a slower one counts when the wait looks next
NODES_LOOKS_NEEDED = 2  # checks that miss a node before its job is lost: a node may be younger than a check

# Stopping jobs (client/jobs/waiting.py, jobs, triggers/job.py, fan_out/plan.py)
STOP_CONFIRM_SECONDS = 15.0  # for a job to end after a stop request; Ray sends SIGKILL after three by default
STOP_LOOK_SECONDS = 0.3  # between two polls of a job that is stopping
LOST_STOP_SECONDS = 5.0  # for a job that was given up: it may never end
LAST_STOP_SECONDS = 5.0  # for jobs of earlier attempts when their task ends
TASK_KILL_SECONDS = 4.0  # Airflow kills the process of a task five seconds after on_kill began
TRIGGER_KILL_SECONDS = 20.0  # of the 30 in [triggerer] on_kill_timeout; half of them to ask Airflow, half to ask Ray
STOP_GRACE_SECONDS = 1.0  # on top of a limit: a cluster that accepts connections and stays silent must not delay a kill

# Deciding about earlier jobs (jobs/earlier.py)
EARLIER_JOBS_SECONDS = 10.0  # after which a cluster is passed over if there is another one
FIRST_SEARCH_SECONDS = 3.0  # likewise, for the search of an attempt that is the first

# The driver log (client/jobs/driver_log.py, client/jobs/log_relay.py, client/api/jobs.py)
LOG_LINES_PER_SECOND = 1000  # lines: Airflow's UI cannot show more for long
LOG_BYTES_PER_SECOND = 1024 * 1024  # bytes, likewise
LOG_BURST_SECONDS = 10  # for which a log may exceed both
LOG_GATHERED_SECONDS = 100  # a read may show as much as both allow in this time
LOG_LAST_LINES = 20  # lines that are shown regardless of the limits
LOG_FOLLOWED_BYTES = 32 * 1024 * 1024  # bytes of a log that are followed: Ray has no offset, so each read starts at 0
LOG_READING_SHARE = 0.05  # share of the time that reading a log may take
LOG_MARKING_SHARE = 0.2  # share of the time that storing the position may take
LOG_PROGRESS_SECONDS = 10.0  # between two states of a progress bar, which ends its line only when it is complete
LOG_FINAL_SECONDS = 15.0  # for which the last read of a log is retried
LOG_TURN_SECONDS = 300.0  # for the last read to get its turn while the logs of others hang
LOG_LINES_AT_ONCE = 100  # lines between two yields to the event loop: showing one takes about 50 microseconds
LOGS_AT_ONCE = 50  # logs read at a time: half of a client's connections, and of what Ray's state API answers at once

# The task log on its way through Airflow (task_log, triggers, client/jobs/driver_log.py)
LOG_WINDOW_BYTES = 96 * 1024  # bytes that Airflow has not read: above about 200 KiB, writers block the event loop
LOG_LITTLE_BYTES = 4096  # bytes, likewise, after a read: Airflow reads them while it stores the position
LOG_MEASURE_SECONDS = 0.02  # between two measurements of that: Airflow reads a few KiB in about 10 ms
LOG_DRAIN_SECONDS = 15.0  # for Airflow to read everything before a trigger fires
LOG_LAST_WORDS_SECONDS = 3.0  # likewise after a kill
LOG_POSITION_SECONDS = 2.0  # for Airflow to confirm the position: a triggerer that is stopping no longer gets answers
EARLIEST_EVENT_SECONDS = 2.0  # after a trigger starts: Airflow 3.3.2 fails tasks that resume before their worker exits

# The limit on concurrent jobs per cluster (client/jobs/admission.py)
UNSEEN_SECONDS = 60.0  # after which a submitted job that no list shows no longer counts
PACKAGE_SECONDS = 240.0  # between two requests for a waiting job's package, which Ray forgets after ten minutes

# Old records of jobs (client/jobs/records.py)
RETENTION_SECONDS = 3600.0  # before a process deletes them, again and again: the list that it takes is expensive
RECORDS_AT_ONCE = 1000  # records that are deleted then, about 5 ms each

# Waiting for Serve (client/serving, client/sharing/shared_serve.py, hooks/ray.py, fan_out/cluster_tasks.py)
SERVE_INTERVAL_SECONDS = 2.0  # longest time between two checks of an application, if the author sets none
SERVE_ROUND_SECONDS = 3.0  # between two checks that waits share: each takes up to five requests, three for jobs
SERVE_TURN_SECONDS = 0.0003  # between the checks of two waits in a round: about what one takes
SERVE_LAST_LOOK_SECONDS = 1.0  # for the last check, which begins when the time is up
SERVE_MESSAGE_CHARACTERS = 20_000  # of Ray's message in an error, as much as Ray itself keeps of a job's
SERVE_NEWS_CHARACTERS = 1000  # likewise, in a log that says what is waited for
ROUTE_LOOKS = 16  # before a call, each on its own connection: 1 in 32,768 times, all reach one of two proxies
ROUTE_LOOKS_HOLD_SECONDS = 60.0  # for which they need not be repeated with a call that is
PROXIES_LEARN_SECONDS = 10.0  # for the proxies of one cluster to learn of a route one after another

# The jobs of a fan-out (fan_out/cluster_tasks.py)
FAN_OUT_INTERVAL_SECONDS = 5.0  # longest time between two polls of the task wait

# Any answer that is shared or shown (client/sharing/answer.py, page/cluster_watch.py)
SLOW_ANSWER_SHARE = 0.1  # share of the time: a list of jobs costs Ray 2.60 190 ms per 1,000 records
RETRY_SECONDS = 6.0  # a first failure may be a hiccup, so the retry comes no later than this
FAILURES_TO_DISTRUST = 2  # failures in a row: one may be a hiccup, two mean that the last answer no longer holds

# States of jobs that tasks wait for (client/sharing/shared_jobs.py, client/sharing/shared_client.py)
ROUND_SECONDS = 1.0  # between two rounds: the end of a job is noticed a second late at most
GATHER_SECONDS = 0.05  # by which a round is delayed, so that waits that begin together share it
FRESH_SECONDS = 0.5  # age up to which a list also answers callers that just missed it
LONGEST_PAUSE_SECONDS = 5.0  # after a slow answer: a deadline or a stop that depends on the next one must not wait long
LIST_FROM = 4  # jobs: requesting fewer one by one is cheaper than any list
LIST_COST_SECONDS = 60.0  # age up to which the cost or failure of a list still counts
WOKEN_AT_ONCE = 50  # waits: waking more in one go would delay everyone else in the event loop

# Capacity and versions that waits share (client/sharing/shared_client.py)
CAPACITY_SECONDS = 2.0  # between two requests: Ray itself measures usage every five seconds
VERSION_SECONDS = 1.0  # between two requests: a sign of life, which all waits need at once when a head restarts

# Querying several clusters at once (client/clusters, clusters/selection.py)
ANSWER_SECONDS = 10.0  # after which a cluster counts as unavailable, whatever its own timeouts are
HICCUP_SECONDS = 2.0  # fault budget when a cluster is chosen: one reset connection does not make it unhealthy

# What the "Ray" page knows about a cluster (page/cluster_watch.py, page/background.py, page/api.py)
PAGE_REFRESH_SECONDS = 3.0  # between two requests to a cluster, and between two requests of a browser
PAGE_REQUEST_SECONDS = 5.0  # longest wait for an answer, whatever the connection says
PAGE_LONGEST_PAUSE_SECONDS = 60.0  # between two requests to a cluster that does not answer
PAGE_IDLE_SECONDS = 15.0  # after the last request of a browser, until a cluster is no longer polled
PAGE_CONNECTION_SECONDS = 30.0  # age up to which a connection that works is not looked up again
PAGE_VERSION_SECONDS = 120.0  # between two requests: changes only when the head restarts
PAGE_NODES_SECONDS = 30.0  # between two requests: nodes come and go in minutes
PAGE_USAGE_SECONDS = 10.0  # between two requests: Ray itself measures usage every five seconds
PAGE_JOBS_SECONDS = 6.0  # between two requests: what users watch most
PAGE_SERVE_SECONDS = 30.0  # between two requests: applications change in minutes
PAGE_JOB_SECONDS = 30.0  # between two requests for a job that is not in the list of active ones
PAGE_JOBS_KEPT = 200  # jobs per cluster that are requested one by one; the oldest are forgotten

# All clusters of the page together (page/background.py)
PAGE_CONNECTIONS_SECONDS = 5.0  # age up to which the list of connections is reused
PAGE_REQUESTS_AT_ONCE = 64  # requests to clusters that answer
PAGE_SLOW_REQUESTS_AT_ONCE = 16  # requests to clusters that did not answer last time, which must not delay the others
PAGE_LOOKUPS_AT_ONCE = 8  # connections that are looked up at a time: each takes one of Airflow's to its database
PAGE_LOOKUP_SECONDS = 0.25  # after which a look-up no longer counts: it hangs in a secrets backend
PAGE_STOPS_AT_ONCE = 16  # requests that stop a job
PAGE_REMEMBERED_SECONDS = 600.0  # for which a cluster that nobody looks at is still shown as it was last seen
PAGE_CLOSE_SECONDS = 10.0  # for the page's thread to end
