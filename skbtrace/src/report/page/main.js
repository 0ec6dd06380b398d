// Puts the page together, and follows keys, the query and the address: #packet=7&find=is:garbled is a link to a packet.

const state = { place: -1, found: [], order: "path" };
const list = new List((place) => select(place));
const query = byId("query");

function remember() {
  const parts = [];
  if (state.place >= 0) parts.push(`packet=${packets[state.place].n}`);
  if (query.value.trim()) parts.push(`find=${encodeURIComponent(query.value.trim())}`);
  history.replaceState(null, "", `#${parts.join("&")}`);
}

/** Opens a packet by its place. */
function select(place) {
  if (place === undefined || place < 0) return;
  state.place = place;
  byId("detail").replaceChildren(...detailOf(packets[place]));
  byId("detail").scrollTop = 0;
  list.mark(place);
  remember();
}

function drawChips() {
  const counts = new Map();
  for (const packet of packets) counts.set(kindOf(packet), (counts.get(kindOf(packet)) ?? 0) + 1);
  const on = (/(?:^|\s)is:(\S+)/.exec(query.value)?.[1] ?? "").split(",");
  byId("chips").replaceChildren(...Object.keys(SIGNS).filter((kind) => counts.has(kind)).map((kind) =>
    el("button", { type: "button", class: `chip is-${kind}`, "aria-pressed": String(on.includes(kind)), onclick: () => search(toggled(query.value, kind)) },
      sign(kind, 12), ` ${SIGNS[kind][0]} ${counts.get(kind).toLocaleString("en")}`)));
}

/** Shows the packets that a query finds. */
function search(words, open) {
  if (words !== undefined) query.value = words;
  state.found = find(query.value);
  list.show(state.found);
  drawChips();
  byId("shown").textContent = state.found.length === packets.length ? counted(packets.length, "packet") : `${state.found.length.toLocaleString("en")} of ${counted(packets.length, "packet")}`;
  later(() => drawLatency(state.found));
  if (open !== undefined) select(open);
  else if (!state.found.includes(state.place) && state.found.length > 0) select(state.found[0]);
  else list.mark(state.place);
  remember();
}

/** What takes time and is further down waits until the page stands still. */
function later(work) {
  clearTimeout(later.due);
  later.due = setTimeout(work, 60);
}

/** So many packets further down the list; or, of those that are not well, the next. */
function move(by, holds = () => true) {
  const at = state.found.indexOf(state.place);
  if (Math.abs(by) !== 1) return select(state.found[Math.min(state.found.length - 1, Math.max(0, at + by))]);
  for (let next = at + by; next >= 0 && next < state.found.length; next += by) {
    if (holds(packets[state.found[next]])) return select(state.found[next]);
  }
}

const THEMES = { auto: "◐ System", light: "○ Light", dark: "● Dark" };

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = THEMES[theme];
}

function nextTheme() {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
}

const isWrong = (packet) => !isWell(packet);
const KEYS = [
  [["j", "ArrowDown"], "next packet", () => move(1)],
  [["k", "ArrowUp"], "packet before", () => move(-1)],
  [["n"], "next packet that was garbled, dropped, held up or not seen whole", () => move(1, isWrong)],
  [["N", "p"], "the one before", () => move(-1, isWrong)],
  [["PageDown"], "ten further", () => move(10)],
  [["PageUp"], "ten back", () => move(-10)],
  [["Home"], "first packet", () => move(-Infinity)],
  [["End"], "last packet", () => move(Infinity)],
  [["/"], "find", () => query.focus()],
  [["Escape"], "find nothing in particular", () => search("")],
  [["e"], "say at each hop what the kernel does there", explain],
  [["t"], "light, dark, or as the system has it", nextTheme],
  [["?"], "this", () => byId("help").showModal()],
];
const ANYWHERE = new Set(["/", "?", "t", "e", "n", "N", "p", "j", "k", "Escape"]);

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.target === query) {
    if (event.key === "Enter" || event.key === "ArrowDown") byId("list").focus();
    else if (event.key === "Escape") search("");
    else return;
    event.preventDefault();
    return;
  }
  // Other keys move the page, unless the list has them.
  if (!ANYWHERE.has(event.key) && event.target !== byId("list")) return;
  const [, , act] = KEYS.find(([keys]) => keys.includes(event.key)) ?? [];
  if (!act) return;
  event.preventDefault();
  act();
}

function drawHelp() {
  const entries = (rows) => el("dl", {}, ...rows.flatMap(([keys, words]) => [el("dt", {}, ...keys.map((key) => el("kbd", {}, key))), el("dd", {}, words)]));
  byId("help-text").append(entries(KEYS), el("h3", {}, "To be found"), entries(Object.entries(ABOUT).map(([word, words]) => [[word], words])),
    el("p", { class: "dim" }, "All words of a query must fit; -word means that it must not. The address of the page holds the packet and the query."));
}

/** On paper there is no list to scroll: a table of what the query finds, and the packet that is open. */
const ON_PAPER = 250;
function toPaper() {
  const shown = state.found.slice(0, ON_PAPER).map((place) => packets[place]);
  const rows = shown.map((packet) => el("tr", {}, el("td", { class: "number" }, `#${packet.n}`), el("td", {}, packet.is),
    el("td", {}, sign(kindOf(packet)), ` ${packet.changed ? `${packet.changed.says}; ` : ""}${packet.ended}`)));
  const rest = state.found.length - shown.length;
  byId("printed").replaceChildren(el("table", {}, el("tbody", {}, ...rows)), rest > 0 ? el("p", {}, `… and ${counted(rest, "packet")} more: a query chooses which are printed.`) : "");
}

/** Goes where the address says; one of a section says nothing of packets. */
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("packet") && !asked.has("find")) return;
  search(asked.get("find") ?? "", byNumber.get(Number(asked.get("packet"))));
}

function begin() {
  const { about } = data;
  document.title = `skbtrace ${about.file}`;
  byId("file").textContent = about.file;
  byId("segment").textContent = about.preface[0] ?? "";
  byId("facts").textContent = [data.since && wallClock(data.since, 0), `Linux ${about.kernel} ${about.machine}`, `recorded by skbtrace ${about.tool}`].filter(Boolean).join(" · ");
  setTheme("auto");
  drawHelp();
  drawFindings((number, packet) => {
    search(`finding:${number}`, byNumber.get(packet));
    byId("packets").scrollIntoView();
  });
  drawTopology((words) => {
    search(words);
    byId("packets").scrollIntoView();
  });
  drawBooks();
  document.querySelector(".workspace").hidden = packets.length === 0;
  // Without a wish: what the first finding is about.
  const found = data.findings.flatMap((finding) => [...packetsOf(finding)])[0];
  state.place = byNumber.get(about.open) ?? byNumber.get(found) ?? (packets.length > 0 ? 0 : -1);
  if (/[#&](packet|find)=/.test(location.hash)) follow();
  else search("", state.place);
  byId("theme").addEventListener("click", nextTheme);
  byId("keys").addEventListener("click", () => byId("help").showModal());
  query.addEventListener("input", () => search());
  document.addEventListener("keydown", onKey);
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", toPaper);
  document.documentElement.dataset.ready = "";
}

begin();
