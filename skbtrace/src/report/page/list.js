// The list of packets. However many there are, only those in view are elements of the page.

const ROW = 46;
const BEYOND = 10;
const VISITS = 9;

/** A packet's way in small: a square per stay at a device, its sign where something happened. */
function strip(packet) {
  const visits = visitsOf(packet).slice(0, VISITS);
  const cells = visits.map((visit, place) => {
    const x = place * 11;
    if (packet.garbled?.some(([step]) => visit.steps.includes(step))) {
      return draw("path", { class: "is-garbled", transform: `translate(${x - 1} 0) scale(.62)`, d: SIGNS.garbled[1] });
    }
    return draw("rect", { x: x + 1, y: 2, width: 6, height: 6 });
  });
  if (packet.verdict === "dropped") {
    cells.push(draw("path", { class: "is-dropped", transform: `translate(${visits.length * 11 - 1} 0) scale(.6)`, d: SIGNS.dropped[1] }));
  }
  const line = draw("path", { class: "thread", d: `M4 5H${(visits.length - 1) * 11 + (packet.verdict === "dropped" ? 12 : 4)}` });
  return draw("svg", { class: "strip", width: 11 * (visits.length + (packet.verdict === "dropped" ? 1 : 0)), height: 10, "aria-hidden": "true" }, line, ...cells);
}

/** The list: `found` are places of packets; `select` is told which one is to be looked at. */
class List {
  constructor(select) {
    this.box = byId("list");
    this.rows = byId("rows");
    this.select = select;
    this.found = [];
    this.nodes = new Map();
    this.place = -1;
    this.box.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(this.box);
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest("[data-place]");
      if (row) this.select(Number(row.dataset.place));
    });
  }

  later() {
    this.due ??= requestAnimationFrame(() => {
      this.due = undefined;
      this.paint();
    });
  }

  show(found) {
    this.found = found;
    this.rows.replaceChildren(found.length === 0 ? el("p", { class: "none" }, "The query finds no packet; Escape clears it.") : "");
    this.nodes.clear();
    this.rows.style.height = `${found.length * ROW}px`;
    this.paint();
  }

  /** Marks a packet, and brings it into view. */
  mark(place) {
    this.place = place;
    const at = this.found.indexOf(place);
    this.box.removeAttribute("aria-activedescendant");
    if (at >= 0) {
      this.box.setAttribute("aria-activedescendant", `row-${at}`);
      const [top, height] = [at * ROW, this.box.clientHeight];
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + ROW > this.box.scrollTop + height) this.box.scrollTop = top + ROW - height;
    }
    this.paint();
  }

  paint() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / ROW) - BEYOND);
    const last = Math.min(this.found.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / ROW) + BEYOND);
    for (const [at, node] of this.nodes) {
      if (at < first || at >= last) {
        node.remove();
        this.nodes.delete(at);
      }
    }
    for (let at = first; at < last; at += 1) {
      let node = this.nodes.get(at);
      if (!node) {
        node = this.row(at);
        this.nodes.set(at, node);
        this.rows.append(node);
      }
      // Nothing is touched that is as it should be: each touch costs a scroll its smoothness.
      const selected = String(this.found[at] === this.place);
      if (node.getAttribute("aria-selected") !== selected) node.setAttribute("aria-selected", selected);
    }
  }

  row(at) {
    const packet = packets[this.found[at]];
    const kind = kindOf(packet);
    const said = packet.changed ? packet.changed.says : packet.ended;
    const node = el("div", { class: `row is-${kind}`, role: "option", id: `row-${at}`, "data-place": this.found[at], "aria-setsize": this.found.length, "aria-posinset": at + 1, "--top": `${at * ROW}px` },
      sign(kind),
      el("span", { class: "n" }, `#${packet.n}`),
      el("span", { class: "what", title: packet.is }, packet.is),
      el("span", { class: "took" }, duration(packet.took)),
      el("span", { class: "said", title: said }, said),
      strip(packet));
    return node;
  }
}
