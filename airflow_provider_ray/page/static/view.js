// The two views: all clusters, and the jobs of a task.
import {
  HEALTH, STALE_SECONDS, age, demandCount, element, health, jobCount, jobTable, jobsSection, labels, link, meter, nothing,
  resourcesSection, seenAt, serveCount, serveSection, tick,
} from "./parts.js";

const COLUMNS = ["Cluster", "Health", "Ray", "CPU", "GPU", "Memory", "Demands", "Jobs", "Serve", "Dashboard"];
const ORDER = { unhealthy: 0, unknown: 1, healthy: 2 };

// Replaces elements with new ones, unless they would be the same; the focus stays where it was.
const shown = new WeakMap();
function fill(node, value, build) {
  const text = JSON.stringify(value);
  if (shown.get(node) === text) {
    return;
  }
  shown.set(node, text);
  const key = node.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  node.replaceChildren(...[build()].flat(Infinity).filter((child) => child !== null));
  if (key !== undefined) {
    [...node.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key)?.focus();
  }
}

// Without what changes all the time.
const lasting = ({ seen, jobs_seen: _, ...rest }) => ({ ...rest, isStale: seen !== null && seen >= STALE_SECONDS });

class Row {
  constructor(cluster, number, context) {
    this.context = context;
    const id = `details-${number}`;
    this.button = element("button", {
      type: "button", class: "unfold", "aria-expanded": "false", "aria-controls": id, onclick: () => this.unfold(),
    }, cluster.conn_id);
    this.labels = element("span", { class: "labels" });
    this.cells = COLUMNS.slice(1).map(() => element("td"));
    this.details = element("div", { class: "details" });
    this.detailRow = element("tr", { id, class: "unfolded", hidden: true },
      element("td", { colspan: COLUMNS.length }, this.details));
    this.row = element("tr", {}, element("th", { scope: "row" }, this.button, this.labels), this.cells);
    this.body = element("tbody", {}, this.row, this.detailRow);
  }

  unfold() {
    this.detailRow.hidden = !this.detailRow.hidden;
    this.button.setAttribute("aria-expanded", String(!this.detailRow.hidden));
    this.update(this.cluster);
    tick(this.details);
  }

  update(cluster) {
    this.cluster = cluster;
    const labelled = Object.entries(cluster.labels).map((pair) => pair.join("="));
    this.words = JSON.stringify([cluster, HEALTH[cluster.health], labelled]).toLowerCase();
    const [healthCell, version, cpu, gpu, memory, waiting, jobs, serve, dashboard] = this.cells;
    const resource = (name) => cluster.resources.find((each) => each.name === name);
    this.row.className = cluster.health === "unhealthy" ? "unhealthy" : "";
    fill(this.labels, cluster.labels, () => labels(cluster.labels));
    fill(healthCell, [cluster.health, cluster.reason, seenAt(cluster.seen ?? 0)], () => [
      health(cluster), age(cluster.seen),
      cluster.reason ? element("small", { class: "reason", title: cluster.reason }, cluster.reason) : null,
    ]);
    fill(version, cluster.ray_version, () => cluster.ray_version ?? element("span", { class: "none" }, "–"));
    for (const [cell, name] of [[cpu, "CPU"], [gpu, "GPU"], [memory, "memory"]]) {
      fill(cell, resource(name) ?? null, () => meter(resource(name)));
    }
    fill(waiting, [cluster.demands, cluster.usage_fault], () => demandCount(cluster));
    fill(jobs, [cluster.running, cluster.pending, cluster.jobs_fault], () => jobCount(cluster));
    fill(serve, [cluster.applications, cluster.serve_fault], () => serveCount(cluster));
    fill(dashboard, cluster.dashboard, () => cluster.dashboard
      ? link(cluster.dashboard, "Open", { outside: true, label: `Ray dashboard of ${cluster.conn_id}` }) : null);
    if (!this.detailRow.hidden) {
      this.updateDetails(cluster);
    }
  }

  updateDetails(cluster) {
    const value = [lasting(cluster), [...this.context.stopping].filter((key) => key.startsWith(`${cluster.conn_id} `))];
    fill(this.details, value, () => [
      cluster.reason ? element("p", { class: "why" }, cluster.reason) : null,
      jobsSection(cluster, this.context), resourcesSection(cluster), serveSection(cluster),
    ]);
  }
}

class View {
  constructor(actions) {
    this.actions = actions;
    this.stopping = new Set();
    this.content = document.getElementById("content");
    this.summary = document.getElementById("summary");
  }

  async stop(connection, job, key) {
    if (await this.actions.stop(connection, job.submission_id, job.task)) {
      this.stopping.add(key);
      this.show(this.clusters);
    }
  }

  // A job that is no longer listed has stopped.
  forgetStopped() {
    const listed = this.clusters.flatMap(({ conn_id: name, jobs }) =>
      jobs.filter((job) => !job.ended_ms).map((job) => `${name} ${job.submission_id}`));
    for (const key of this.stopping) {
      if (!listed.includes(key)) {
        this.stopping.delete(key);
      }
    }
  }

  tick() {
    tick(this.content);
  }
}

// All clusters that the user may see.
export class Fleet extends View {
  forbidden = "You do not have permission to view connections, so no clusters can be shown.";
  rows = new Map();
  clusters = [];

  constructor(actions) {
    super(actions);
    this.filter = document.getElementById("filter");
    this.sort = document.getElementById("sort");
    for (const input of [this.filter, this.sort]) {
      input.addEventListener("input", () => this.arrange());
    }
    const hint = "Tasks, actors and placement groups waiting for resources";
    const heads = COLUMNS.map((text) => element("th", { scope: "col", title: text === "Demands" ? hint : null }, text));
    this.table = element("table", { class: "fleet", "aria-label": "Ray clusters" }, element("thead", {}, element("tr", {}, heads)));
    this.empty = element("p", { class: "empty" });
    this.content.append(element("div", { class: "scroll" }, this.table), this.empty);
    this.table.hidden = true;
  }

  clear() {
    this.show([]);
    this.empty.textContent = "";
  }

  // Returns whether some cluster is still being checked.
  show(clusters) {
    this.clusters = clusters;
    this.forgetStopped();
    const names = new Set(clusters.map((cluster) => cluster.conn_id));
    for (const [name, row] of this.rows) {
      if (!names.has(name)) {
        row.body.remove();
        this.rows.delete(name);
      }
    }
    for (const cluster of clusters) {
      if (!this.rows.has(cluster.conn_id)) {
        this.rows.set(cluster.conn_id, new Row(cluster, (this.made = (this.made ?? 0) + 1), this));
      }
      this.rows.get(cluster.conn_id).update(cluster);
    }
    this.arrange();
    this.tick();
    return clusters.some((cluster) => cluster.health === "unknown");
  }

  arrange() {
    const wanted = this.filter.value.trim().toLowerCase();
    const rows = [...this.rows.values()].sort((one, other) => compare(one.cluster, other.cluster, this.sort.value));
    for (const row of rows) {
      row.body.hidden = !row.words.includes(wanted);
    }
    const bodies = rows.map((row) => row.body);
    if (bodies.some((body, index) => body !== this.table.tBodies[index])) {
      const focused = document.activeElement;
      this.table.append(...bodies);
      focused?.focus();
    }
    this.summarize(rows.filter((row) => !row.body.hidden).length);
  }

  summarize(visible) {
    const all = this.clusters;
    const sum = (name) => all.reduce((total, cluster) => total + (cluster[name] ?? 0), 0);
    const unhealthy = all.filter((cluster) => cluster.health === "unhealthy").length;
    const uncounted = all.filter((cluster) => cluster.health === "healthy" && cluster.running === null && cluster.jobs_fault).length;
    const parts = [`${all.length} cluster${all.length === 1 ? "" : "s"}`, unhealthy ? `${unhealthy} unhealthy` : "",
      `${sum("running")} jobs running`, `${sum("pending")} pending`,
      uncounted ? `jobs unknown on ${uncounted}` : ""];
    this.summary.textContent = all.length ? parts.filter(Boolean).join(" · ") : "";
    document.getElementById("tools").hidden = !all.length;
    this.table.hidden = !visible;
    this.empty.textContent = visible ? "" : all.length
      ? "No clusters match the filter."
      : "There are no Ray connections that you can view. To add one, go to Admin → Connections.";
  }
}

const cpuShare = ({ resources }) => {
  const cpu = resources.find((each) => each.name === "CPU");
  return cpu?.total ? (cpu.used ?? 0) / cpu.total : -1;
};
const byName = (one, other) => one.conn_id.localeCompare(other.conn_id, undefined, { numeric: true });
const KEYS = {
  health: (cluster) => ORDER[cluster.health],
  name: () => 0,
  cpu: (cluster) => -cpuShare(cluster),
  jobs: ({ running, pending }) => -(running ?? 0) - (pending ?? 0),
};
const compare = (one, other, order) => KEYS[order](one) - KEYS[order](other) || byName(one, other);

// The jobs of one task.
export class Tasks extends View {
  forbidden = "You do not have permission to view the task instances of this Dag.";
  clusters = [];

  constructor(actions) {
    super(actions);
    document.getElementById("title").textContent = "Ray jobs of this task";
    document.title = "Ray jobs";
  }

  clear() {
    this.content.replaceChildren();
  }

  show(clusters) {
    this.clusters = clusters;
    this.forgetStopped();
    fill(this.content, [clusters.map(lasting), [...this.stopping]], () => clusters.length
      ? clusters.map((cluster) => this.cluster(cluster))
      : element("p", { class: "empty" }, "This task has not submitted or waited for a Ray job."));
    this.tick();
    return clusters.some((cluster) => cluster.health === "unknown" || (!cluster.jobs.length && !cluster.missing));
  }

  cluster(cluster) {
    const gone = cluster.missing ? nothing(`The cluster has no record of the job ${cluster.missing}.`) : null;
    const none = cluster.health === "unknown" || cluster.missing ? null : nothing("Nothing is known about the job yet.");
    return element("section", { class: "task" },
      element("h2", {}, cluster.conn_id, " ", health(cluster), age(cluster.seen)),
      cluster.jobs.length ? jobTable(cluster, this, false) : gone ?? none);
  }
}
