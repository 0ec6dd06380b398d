// One packet: a lane per device, from left to right in the order of its way, boxed by namespace; a row per hop, downwards.

/** The devices of a packet and of its branches, in the order of its way. */
function lanesOf(packet) {
  const lanes = [];
  for (const life of livesOf(packet)) {
    for (const { dev } of visitsOf(life)) if (!lanes.includes(dev)) lanes.push(dev);
  }
  return lanes;
}

const netnsOf = (dev) => (dev === undefined ? undefined : devices[dev].netns);

/** Lanes that are beside each other and of one namespace, as [first, one past the last, namespace]. */
function boxesOf(lanes) {
  const boxes = [];
  lanes.forEach((dev, lane) => {
    const last = boxes.at(-1);
    if (last && last[2] === netnsOf(dev)) last[1] = lane + 1;
    else boxes.push([lane, lane + 1, netnsOf(dev)]);
  });
  return boxes;
}

/** Writes rows of hops into a grid. */
class Lanes {
  constructor(packet) {
    this.packet = packet;
    this.lanes = lanesOf(packet);
    this.grid = el("div", { class: "lanes", role: "table", "aria-label": "Hops", "--lanes": this.lanes.length });
    this.line = 0;
    this.header();
    this.life(packet, undefined, false);
    const boxes = boxesOf(this.lanes).map(([first, last], place) =>
      el("div", { class: `box ${place % 2 ? "odd" : ""}`, "--from": first / this.lanes.length, "--to": last / this.lanes.length }));
    this.grid.prepend(el("div", { class: "boxes", "aria-hidden": "true", "--rows": this.line }, ...boxes));
  }

  row(kind, ...cells) {
    this.line += 1;
    const row = el("div", { class: `hop ${kind}`, role: "row" }, ...cells);
    for (const cell of cells) cell.style.gridRow = this.line;
    this.grid.append(row);
    return row;
  }

  header() {
    const names = this.lanes.map((dev) => {
      const name = dev === undefined ? "no device known" : devices[dev].name;
      const bridge = dev !== undefined && devices[dev].bridge;
      return el("div", { class: `device ${dev !== undefined && devices[dev].target ? "target" : ""}`, title: dev === undefined ? name : deviceLabel(dev) },
        name, bridge && el("small", {}, `port of ${bridge}`));
    });
    const boxes = boxesOf(this.lanes).map(([first, last, netns]) => {
      const name = netns === undefined ? "" : data.netns[netns];
      return el("div", { class: "netns", title: name, "--first": first + 1, "--last": last + 1 }, name);
    });
    this.row("head",
      el("div", { class: "delta", role: "columnheader" }, "Δ"),
      el("div", { class: "names", role: "columnheader" }, ...boxes, ...names),
      el("div", { class: "len", role: "columnheader", title: "skb->len" }, "len"),
      el("div", { class: "says", role: "columnheader" }, ""));
  }

  /** The cells of a row: the line that leads here from the lane before, the mark, and the words. */
  track(lane, from, kind, mark, ...words) {
    const share = (place) => place / this.lanes.length;
    const cell = el("div", { class: "track", role: "cell", "--x": share(lane) });
    if (from !== undefined && from !== lane) {
      const [left, right] = [Math.min(from, lane), Math.max(from, lane)];
      cell.append(el("i", { class: `elbow ${from < lane ? "right" : "left"}`, "--from": share(left), "--to": share(right) }));
    }
    if (from !== undefined) cell.append(el("i", { class: "in" }));
    if (kind !== "last") cell.append(el("i", { class: "out" }));
    cell.append(mark, el("div", { class: "label" }, ...words));
    return cell;
  }

  delta(since, total) {
    const share = total > 0 ? Math.min(1, since / total) : 0;
    return el("div", { class: "delta", role: "cell" }, el("i", { "--share": share }), el("span", {}, since === undefined ? "" : `+${duration(since)}`));
  }

  life(life, from, tainted) {
    const steps = [...stepsOf(life)];
    const total = steps.reduce((sum, [, since]) => sum + since, 0);
    let [lane, last, bad] = [from ?? 0, from, tainted];
    let ended;
    steps.forEach(([shape, since], place) => {
      const hop = hops[shape.hop];
      if (shape.lost) {
        this.row("gap", el("div", { class: "delta", role: "cell" }), this.track(lane, last, "", el("i", { class: "hole" }), `… ${counted(shape.lost, "event")} lost`));
        last = lane;
      }
      if (hop.end) {
        ended = since;
        return;
      }
      // Until the first device is known, the packet is on its way there.
      const dev = shape.dev ?? (last === undefined ? this.lanes[0] : this.lanes[lane]);
      lane = Math.max(0, this.lanes.indexOf(dev));
      const number = life.garbled?.findLast(([step]) => step === place)?.[1];
      const here = number !== undefined;
      bad ||= here;
      const words = [el("span", { class: "name" }, hop.name)];
      if (shape.to !== undefined) words.push(el("span", { class: "to" }, ` → ${devices[shape.to].name}`));
      if (shape.within) words.push(el("span", { class: "within" }, ` (${shape.within})`));
      const held = life === this.packet && place === life.held;
      if (here) words.push(el("strong", { class: "mark" }, this.packet.changed.all[number].place));
      if (held) words.push(el("strong", { class: "mark" }, `held for ${duration(since)} before it came here`));
      words.push(el("small", { class: "teaches" }, hop.teaches));
      const says = [...(shape.says ?? [])];
      if (shape.waited) says.unshift(`waited in ${QUEUES[shape.waited]}`);
      const kind = [here && "garbled", held && "held", bad && "tainted", shape.waited && "waited"].filter(Boolean).join(" ");
      const mark = el("i", { class: "dot" }, here ? sign("garbled", 18) : held && sign("delayed", 18));
      const row = this.row(kind, this.delta(place === 0 && from === undefined ? undefined : since, total), this.track(lane, last, "", mark, ...words),
        el("div", { class: "len", role: "cell" }, String(shape.len)), el("div", { class: "says", role: "cell" }, says.join(", ")));
      if (here || held) row.prepend(this.stripe());
      last = lane;
    });
    const arrived = life.verdict === "delivered" && bad;
    const words = `${life.words || life.ended}${arrived ? ", with its payload changed" : ""}`;
    const kind = words.startsWith("DROPPED") ? "dropped" : arrived ? "garbled" : life.verdict;
    const row = this.row(`end is-${kind} ${bad ? "tainted" : ""}`, this.delta(ended, total),
      this.track(lane, last, "last", el("i", { class: "dot" }, sign(kind, 18)), el("strong", {}, words)));
    if (kind === "dropped") row.prepend(this.stripe());
    this.branches(life, steps, lane, bad);
  }

  branches(life, steps, lane, bad) {
    for (const branch of life.branches ?? []) {
      const source = steps[Math.min(branch.after, steps.length - 1)];
      const dev = source && source[0].dev;
      const after = source ? hops[source[0].hop].name : "its beginning";
      const from = dev === undefined ? lane : Math.max(0, this.lanes.indexOf(dev));
      this.row("fork", el("div", { class: "forked", role: "cell" }, `└ branch after ${after}: ${branch.ended}`));
      // What left after the change has it.
      this.life(branch, from, bad && (!life.garbled || branch.after >= life.garbled[0][0]));
    }
  }

  /** Behind the row where something happened. */
  stripe() {
    const stripe = el("div", { class: "stripe", "aria-hidden": "true" });
    stripe.style.gridRow = this.line;
    return stripe;
  }
}

/** Says at each hop what the kernel does there, or does so no more. */
function explain() {
  const on = byId("detail").classList.toggle("explain");
  for (const button of document.querySelectorAll(".teach")) button.setAttribute("aria-pressed", String(on));
}

/** All that there is to say of a packet. */
function detailOf(packet) {
  const kind = kindOf(packet);
  const facts = [data.since && wallClock(data.since, packet.at), `took ${duration(packet.took)}`, packet.same && `payload same at ${packet.same} hops`];
  return [
    el("header", { class: `is-${kind}` },
      el("h3", {}, sign(kind, 20), ` #${packet.n} `, el("span", { class: "mono" }, packet.is),
        el("button", { type: "button", class: "teach", "aria-pressed": String(byId("detail").classList.contains("explain")), onclick: explain, title: "What the kernel does at each hop (e)" }, "Explain")),
      el("p", { class: "verdict" }, packet.changed && el("strong", {}, `${packet.changed.says}; `), kind === "delayed" && el("strong", {}, "DELAYED; "), packet.ended),
      el("p", { class: "dim" }, facts.filter(Boolean).join(" · "))),
    new Lanes(packet).grid,
    ...(packet.changed?.all ?? []).map(hexOf),
  ];
}
