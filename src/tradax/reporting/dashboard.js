"use strict";
// Asks for the state every two seconds and changes only what has changed, so that the keyboard's
// focus stays where it is. Text is set as text, never as HTML.
const EVERY = 2000;
let tag = null;
let lost = false;

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function fill(row, one) {
  put(row.querySelector("bdi"), one.name);
  for (const cell of row.querySelectorAll("td[data-cell]")) {
    const name = cell.dataset.cell;
    if (name === "state") fillState(cell, one);
    else if (name === "progress") fillProgress(cell, one);
    else if (name === "links") fillLinks(cell, one);
    else put(cell, one.cells[name] ?? "–");
  }
}

function fillState(cell, one) {
  const [state, note] = [cell.querySelector(".state"), cell.querySelector(".note")];
  state.className = `state ${one.state}`;
  put(state, one.state);
  put(note, one.note);
}

function fillProgress(cell, one) {
  const bar = cell.querySelector("progress");
  bar.hidden = one.progress === null;
  bar.value = one.progress ?? 0;
  put(cell.querySelector("small"), one.cells.steps ?? one.cells.members ?? "");
}

function fillLinks(cell, one) {
  const wanted = JSON.stringify(one.links);
  if (cell.dataset.links === wanted) return;
  const same = [...cell.querySelectorAll("a")].map((a) => [a.textContent, a.getAttribute("href")]);
  cell.dataset.links = wanted;
  if (JSON.stringify(same) === wanted) return;
  cell.replaceChildren(...one.links.flatMap(([label, href]) => {
    const a = document.createElement("a");
    a.href = href;
    a.textContent = label;
    a.setAttribute("aria-label", `${label} of ${one.name}`);
    return [a, " "];
  }));
}

// Rows stay where they are; new ones are put between them.
function update(kind, listed) {
  const body = document.querySelector(`#${kind} tbody`);
  const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  const changes = [];
  let after = null;
  for (const one of listed) {
    let row = rows.get(one.key);
    rows.delete(one.key);
    const before = row?.querySelector(".state").textContent;
    if (row === undefined) {
      row = document.getElementById(`${kind}-row`).content.firstElementChild.cloneNode(true);
      row.dataset.key = one.key;
      if (after === null) body.prepend(row);
      else after.after(row);
    }
    fill(row, one);
    if (before !== one.state) changes.push(`${one.name}: ${one.state}`);
    after = row;
  }
  for (const row of rows.values()) row.remove();
  document.getElementById(kind).hidden = listed.length === 0;
  return changes;
}

async function ask() {
  try {
    const headers = tag === null ? {} : {"If-None-Match": tag};
    const answer = await fetch("/runs.json", {headers, cache: "no-store"});
    if (answer.status === 200) {
      tag = answer.headers.get("ETag");
      const state = await answer.json();
      const changes = [...update("runs", state.runs), ...update("sweeps", state.sweeps)];
      if (changes.length > 0) put(document.getElementById("changes"), changes.slice(0, 5).join("; "));
      put(document.getElementById("connection"), state.told);
    } else if (answer.status !== 304) throw new Error(answer.status);
    if (lost) tag = null;
    lost = false;
  } catch {
    if (!lost) {
      put(document.getElementById("connection"),
        `The server does not answer; this is how things stood at ${new Date().toLocaleTimeString()}.`);
    }
    lost = true;
  }
  setTimeout(ask, EVERY);
}

ask();
