"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const children = data.nodes.map(() => []);
data.nodes.forEach((node, id) => { if (id) children[node[1]].push(id); });
const MOST = 5000;
let layer = data.layers.length - 1;
const open = new Set([0]);

const element = (tag, text, name) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
};
const bytes = (n) => {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1000; unit += 1; }
  return unit ? n.toPrecision(3) + " " + units[unit] : n + " B";
};
const at = (id, upTo) => {
  const versions = data.nodes[id][2];
  for (let i = versions.length - 1; i >= 0; i -= 1) if (versions[i][0] <= upTo) return versions[i];
  return null;
};
const there = (version) => version !== null && version.length > 1;
const change = (id) => {
  const now = at(id, layer);
  if (!now || now[0] !== layer) return "";
  const before = there(at(id, layer - 1));
  if (there(now)) return before ? "changed" : "added";
  return before ? "removed" : "";
};
const path = (id) => {
  const parts = [];
  for (let i = id; i; i = data.nodes[i][1]) parts.unshift(data.nodes[i][0]);
  return "/" + parts.join("/");
};
let sizes = [], touched = [];
const measure = () => {
  sizes = data.nodes.map((_, id) => { const v = at(id, layer); return there(v) ? v[4] : 0; });
  touched = data.nodes.map((_, id) => change(id) !== "");
  for (let id = data.nodes.length - 1; id > 0; id -= 1) {
    sizes[data.nodes[id][1]] += sizes[id];
    if (touched[id]) touched[data.nodes[id][1]] = true;
  }
};
const order = (ids) => {
  const name = (a, b) => (data.nodes[a][0] < data.nodes[b][0] ? -1 : 1);
  return ids.slice().sort($("bysize").checked ? (a, b) => sizes[b] - sizes[a] || name(a, b) : name);
};
const row = (id, depth, label) => {
  const state = change(id);
  const version = at(id, layer);
  const shown = there(version) ? version : at(id, layer - 1);
  const made = element("tr", undefined, state);
  const directory = shown && shown[1] && shown[1][0] === "d";
  if (directory) made.classList.add("directory");
  const cell = element("td");
  const mark = directory ? (open.has(id) || label ? "▾ " : "▸ ") : "  ";
  const link = shown && shown[6] ? " → " + shown[6] : "";
  const name = element("span", mark + (label || data.nodes[id][0]) + link, "name");
  name.style.paddingLeft = depth * 1.2 + "rem";
  cell.append(name);
  if (directory && !label) made.addEventListener("click", () => {
    if (open.has(id)) open.delete(id); else open.add(id);
    draw();
  });
  made.append(cell, element("td", bytes(sizes[id])), element("td", shown ? shown[1] : ""),
    element("td", shown ? shown[2] + ":" + shown[3] : ""), element("td", version ? String(version[0]) : ""));
  return made;
};
const visible = (id) => {
  const now = there(at(id, layer));
  return (now || change(id) === "removed") && (!$("only").checked || touched[id]);
};
const draw = () => {
  const rows = document.createDocumentFragment();
  let count = 0, left = 0;
  const add = (id, depth, label) => { if (count < MOST) { rows.append(row(id, depth, label)); count += 1; } else left += 1; };
  const wanted = $("search").value.toLowerCase();
  if (wanted) {
    data.nodes.forEach((_, id) => {
      if (id && visible(id) && path(id).toLowerCase().includes(wanted)) add(id, 0, path(id));
    });
  } else {
    const walk = (id, depth) => order(children[id]).filter(visible).forEach((child) => {
      add(child, depth);
      if (open.has(child)) walk(child, depth + 1);
    });
    walk(0, 0);
  }
  $("tree").replaceChildren(rows);
  $("more").hidden = left === 0;
  $("more").textContent = left + " more are not shown";
};
const choose = (chosen) => {
  layer = chosen;
  document.querySelectorAll(".layer").forEach((made, number) => made.setAttribute("aria-pressed", number === layer));
  measure();
  draw();
};
const begin = () => {
  $("image").textContent = data.image;
  const part = data.carried ? Math.round((data.wasted * 100) / data.carried) : 0;
  $("about").textContent = [data.platform, data.digest, data.layers.length + " layers",
    bytes(data.carried) + " in files", bytes(data.wasted) + " wasted (" + part + " %)"].join(" · ");
  const largest = Math.max(1, ...data.layers.map((one) => one.files));
  data.layers.forEach((one, number) => {
    const made = element("button", undefined, "layer");
    made.append(element("small", number + " · " + bytes(one.size) + " blob · " + bytes(one.files) + " in files · " + one.entries + " entries"));
    const step = element("code", one.step || "(no history)");
    step.title = one.step;
    const meter = element("span", undefined, "meter");
    const fill = element("i");
    fill.style.width = (one.files * 100) / largest + "%";
    meter.append(fill);
    made.append(step, meter);
    made.addEventListener("click", () => choose(number));
    $("layers").append(made);
  });
  data.waste.slice(0, MOST).forEach(([id, size, written, hidden, removed]) => {
    const made = element("tr");
    made.append(element("td", bytes(size)), element("td", path(id), "name"), element("td", "layer " + written),
      element("td", "layer " + hidden + (removed ? ", removed" : ", written again")));
    $("wasted").append(made);
  });
  $("document").textContent = JSON.stringify(data.config, null, 2);
  const tabs = document.querySelectorAll("[role=tab]");
  tabs.forEach((tab) => tab.addEventListener("click", () => {
    tabs.forEach((other) => other.setAttribute("aria-selected", other === tab));
    document.querySelectorAll(".view").forEach((view) => { view.hidden = view.id !== tab.dataset.view; });
  }));
  ["search", "only", "bysize"].forEach((id) => $(id).addEventListener("input", draw));
  choose(layer);
};
begin();
