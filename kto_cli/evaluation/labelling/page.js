"use strict";
const CHOICES = {
  1: [["good", "Good", "good", ["g", "1"]], ["bad", "Bad", "bad", ["b", "2"]]],
  2: [
    ["first", "A is better", "one", ["1", "a", "ArrowLeft"]],
    ["second", "B is better", "one", ["2", "ArrowRight"]],
    ["both", "Both good", "good", ["3", "g"]],
    ["neither", "Both bad", "bad", ["4", "b"]],
  ],
};
const byId = (id) => document.getElementById(id);
const token = document.body.dataset.token;
const main = byId("main"), reason = byId("reason"), status = byId("status");
let state = null, busy = false, hiding = 0;
let name = new URLSearchParams(location.search).get("name") || "";

function element(kind, text, className) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, fault) {
  clearTimeout(hiding);
  status.textContent = text;
  status.className = fault ? "fault" : "";
  if (text && !fault) hiding = setTimeout(() => say(""), 1500);
}

async function ask(path, body) {
  const options = { headers: { "X-Token": token }, cache: "no-store" };
  if (body) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let reply;
  try {
    reply = await fetch(path, options);
  } catch {
    throw new Error("kto label does not answer: this label is not saved, all earlier ones are. Start it again and open its link.");
  }
  const found = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(found.error), { status: reply.status });
  return found;
}

async function refresh() {
  show(await ask("/api/state?name=" + encodeURIComponent(name)));
}

async function send(path, body, done) {
  if (busy) return;
  busy = true;
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  try {
    const found = await ask(path, { name, ...body });
    reason.value = found.reason || "";
    show(found);
    say(done);
  } catch (error) {
    say(error.message, true);
    if (error.status === 409) await refresh().catch(() => {});
  } finally {
    busy = false;
    for (const button of document.querySelectorAll("button")) button.disabled = false;
    byId("undo").disabled = !(state && state.undo);
  }
}

const label = (choice) => send("/api/label", { item: state.item.id, choice, reason: reason.value }, "Saved");
const skip = () => send("/api/skip", { item: state.item.id }, "Put off to the end");
const undo = () => send("/api/undo", {}, "Taken back");

function turns(found, parent) {
  for (const turn of found) {
    const one = element("div", undefined, "turn");
    if (found.length > 1 || turn.role === "system") one.append(element("div", turn.role, "role"));
    const words = element("div", turn.text, "words");
    words.dir = "auto";
    one.append(words);
    parent.append(one);
  }
}

function show(found) {
  state = found;
  byId("who").textContent = "· " + found.name;
  byId("count").textContent =
    found.done + " of " + found.total + (found.skipped ? ", " + found.skipped + " put off" : "");
  byId("bar").max = found.total;
  byId("bar").value = found.done;
  byId("name-form").hidden = true;
  byId("controls").hidden = false;
  byId("undo").disabled = !found.undo;
  for (const each of [byId("skip"), reason, byId("hint")]) each.hidden = !found.item;
  main.replaceChildren();
  byId("choices").replaceChildren();
  if (found.item) showItem(found.item);
  else showEnd(found);
  scrollTo(0, 0);
}

function showItem(item) {
  const prompt = element("div", undefined, "asked-for");
  prompt.setAttribute("role", "region");
  prompt.setAttribute("aria-label", "Prompt");
  prompt.tabIndex = 0;
  turns(item.prompt, prompt);
  const beside = element("div", undefined, "beside");
  item.answers.forEach((answer, index) => {
    const one = element("div", undefined, "answer");
    one.append(element("h2", item.answers.length > 1 ? "Answer " + "AB"[index] : "Answer"));
    turns(answer, one);
    beside.append(one);
  });
  main.append(prompt, beside);
  prompt.scrollTop = prompt.scrollHeight;
  for (const [choice, text, className, keys] of CHOICES[item.answers.length]) {
    const button = element("button", text + " ", className);
    button.type = "button";
    button.append(element("kbd", keys[0]));
    button.addEventListener("click", () => label(choice));
    byId("choices").append(button);
  }
}

function showEnd(found) {
  const left = found.total - found.done;
  main.append(element("h1", left ? left + " put off" : "All " + found.total + " labelled"));
  if (left) {
    const again = element("button", "Show them again", "plain");
    again.type = "button";
    again.addEventListener("click", () => send("/api/again", {}, ""));
    byId("choices").append(again);
  }
  main.append(element("p", "Labels are in " + found.file + ". Another person labels under another name: add &name=NAME to the link."));
  main.append(table(["person", "labels"], Object.entries(found.people)));
  if (found.agreement.length) {
    main.append(element("h3", "Agreement"));
    main.append(table(["people", "agree", "Cohen's kappa"], found.agreement.map((each) => [
      each.people.join(" and "),
      each.agree + " of " + each.items,
      each.kappa === null ? "not defined" : each.kappa.toFixed(2) + " (" + each.interval.map((edge) => edge.toFixed(2)).join(" to ") + ")",
    ])));
    main.append(element("p", "Kappa is 1 where two people always agree, 0 where they agree as often as by chance. Intervals are of 90 %.", "note"));
  }
}

function table(columns, rows) {
  const made = element("table"), head = element("tr"), body = element("tbody");
  for (const column of columns) head.append(element("th", column));
  for (const row of rows) {
    const line = element("tr");
    for (const cell of row) line.append(element("td", String(cell)));
    body.append(line);
  }
  const top = element("thead");
  top.append(head);
  made.append(top, body);
  return made;
}

document.addEventListener("keydown", (event) => {
  if (event.target === reason) {
    if (event.key === "Enter" || event.key === "Escape") reason.blur();
    return;
  }
  if (event.target.tagName === "INPUT" || event.repeat || event.ctrlKey || event.metaKey || event.altKey || !state) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "u" && state.undo) undo();
  else if (!state.item) return;
  else if (key === "s") skip();
  else if (key === "r") reason.focus();
  else {
    const found = CHOICES[state.item.answers.length].find((each) => each[3].includes(key));
    if (!found) return;
    label(found[0]);
  }
  event.preventDefault();
});

byId("skip").addEventListener("click", skip);
byId("undo").addEventListener("click", undo);
byId("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  name = byId("name").value.trim();
  if (name) start();
});

function start() {
  const address = new URL(location.href);
  address.searchParams.set("name", name);
  history.replaceState(null, "", address);
  refresh().catch((error) => say(error.message, true));
}

if (name) start();
else {
  main.replaceChildren();
  byId("name-form").hidden = false;
  byId("name").focus();
}
