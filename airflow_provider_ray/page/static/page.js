// Asks Airflow every few seconds what it knows about the clusters, and shows it; not while the page is hidden.
import { Fleet, Tasks } from "./view.js";

const IMPATIENT_MS = 700;
const IMPATIENT_LOOKS = 8;
const ANSWER_MS = 10000;

const query = new URLSearchParams(location.search);
const byId = (id) => document.getElementById(id);
const part = encodeURIComponent;

let refreshMs = 3000;
let looks = 0;
let timer;
let underWay = false;
let trouble = "";

// The UI stores the theme that the user has chosen; "system" or no value leaves it to the browser.
function followTheme() {
  const theme = localStorage.getItem("theme");
  document.documentElement.dataset.theme = theme === "dark" || theme === "light" ? theme : "";
}

// For a task that is not mapped, the UI leaves the placeholder for the map index in place.
function addressOfAnswers() {
  if (!query.has("task_id")) {
    return "api/clusters";
  }
  const index = Number.parseInt(query.get("map_index"), 10);
  const [dag, run, task] = ["dag_id", "run_id", "task_id"].map((name) => part(query.get(name) ?? ""));
  return `api/dags/${dag}/runs/${run}/tasks/${task}/${Number.isNaN(index) ? -1 : index}`;
}

async function ask(address, options = {}) {
  const response = await fetch(address, { ...options, signal: AbortSignal.timeout(ANSWER_MS), redirect: "error" });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    const detail = typeof body.detail === "string" ? body.detail : `status ${response.status}`;
    throw Object.assign(new Error(detail), { status: response.status });
  }
  return body;
}

async function stopJob(connection, job) {
  try {
    const answer = await ask(`api/connections/${part(connection)}/jobs/${part(job)}/stop`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: "{}",
    });
    say(answer.stopped ? `Job ${job} is being stopped.` : `Job ${job} had already ended.`);
    return answer.stopped;
  } catch (error) {
    say(`Job ${job} could not be stopped: ${error.message}`, true);
    return false;
  } finally {
    later(0);
  }
}

function confirmed(job, task) {
  const dialog = byId("confirm");
  byId("what").textContent = job;
  byId("consequence").textContent = task
    ? `It was submitted by the task ${task.task_id} of the Dag ${task.dag_id}. If that task is still waiting for the job, ` +
      "it will fail, or submit a new job if it has retries left."
    : "Ray sends SIGTERM to the job, and SIGKILL if it is still running a few seconds later.";
  return new Promise((resolve) => {
    byId("stop").onclick = () => dialog.close("stop");
    byId("keep").onclick = () => dialog.close();
    dialog.onclose = () => resolve(dialog.returnValue === "stop");
    dialog.returnValue = "";
    dialog.showModal();
    byId("keep").focus();
  });
}

function say(text, isTrouble = false) {
  const notice = byId("notice");
  notice.textContent = text;
  notice.className = isTrouble ? "trouble" : "";
}

function sayTrouble(text) {
  // A message about a job stays until the next message.
  if (text || trouble) {
    say(text, true);
  }
  trouble = text;
}

function explain(error) {
  if (error.status === 401) {
    view.clear();
    return "Your session has expired. Reload Airflow to log in again.";
  }
  if (error.status === 403) {
    view.clear();
    return view.forbidden;
  }
  return error.status ? error.message : "Airflow is not responding. The data below may be out of date.";
}

async function look() {
  if (underWay || document.hidden) {
    return;
  }
  underWay = true;
  let soon = false;
  try {
    const answer = await ask(address);
    refreshMs = answer.refresh * 1000;
    looks += 1;
    soon = view.show(answer.clusters) && looks < IMPATIENT_LOOKS;
    sayTrouble("");
  } catch (error) {
    sayTrouble(explain(error));
  } finally {
    underWay = false;
    byId("content").removeAttribute("aria-busy");
    later(soon ? IMPATIENT_MS : refreshMs);
  }
}

function later(milliseconds) {
  clearTimeout(timer);
  timer = setTimeout(look, milliseconds);
}

const actions = {
  async stop(connection, job, task) {
    return (await confirmed(job, task)) && stopJob(connection, job);
  },
};
const address = addressOfAnswers();
const view = query.has("task_id") ? new Tasks(actions) : new Fleet(actions);

followTheme();
addEventListener("storage", followTheme);
document.addEventListener("visibilitychange", look);
setInterval(() => view.tick(), 1000);
look();
