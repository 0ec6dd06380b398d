// The map: namespaces as boxes, devices in them, pairs and bridge ports as lines. Only what packets passed, or are ports of the
// same bridge, is known; the segment's own line, from the run, stands above it.

const NODE = { width: 156, height: 38, gap: 14, apart: 56 };
const BOX = { pad: 16, head: 26, apart: 74 };
const MOST_DEVICES = 60;

/** Devices and bridges as nodes of the map; each knows its box. */
function nodesOf() {
  const counts = new Array(devices.length).fill(0);
  for (const packet of packets) {
    const at = new Set();
    for (const life of livesOf(packet)) for (const [shape] of stepsOf(life)) if (shape.dev !== undefined) at.add(shape.dev);
    for (const dev of at) counts[dev] += 1;
  }
  const busiest = devices.map((_, dev) => dev).sort((one, other) => counts[other] - counts[one]).slice(0, MOST_DEVICES);
  const nodes = busiest.sort((one, other) => one - other).map((dev) => ({ dev, ...devices[dev], packets: counts[dev], findings: data.findings.filter((finding) =>
    finding.device === devices[dev].name && finding.ifindex === devices[dev].ifindex && finding.netns_name === data.netns[devices[dev].netns]) }));
  const bridges = new Map();
  for (const node of nodes.filter((node) => node.bridge)) {
    const key = `${node.netns} ${node.bridge}`;
    if (!bridges.has(key)) {
      const known = nodes.find((other) => other.netns === node.netns && other.name === node.bridge);
      bridges.set(key, known ?? { name: node.bridge, netns: node.netns, findings: [] });
    }
    bridges.get(key).isBridge = true;
    node.master = bridges.get(key);
  }
  return [...nodes, ...[...bridges.values()].filter((bridge) => !nodes.includes(bridge))];
}

/** Which column each namespace is in: the one with most neighbours in the middle, the others beside it. */
function columnsOf(nodes, pairs) {
  const boxes = [...new Set(nodes.map((node) => node.netns))];
  const neighbours = new Map(boxes.map((box) => [box, new Set()]));
  for (const [one, other] of pairs) {
    if (one.netns === other.netns) continue;
    neighbours.get(one.netns).add(other.netns);
    neighbours.get(other.netns).add(one.netns);
  }
  const hub = boxes.reduce((best, box) => (neighbours.get(box).size > neighbours.get(best).size ? box : best), boxes[0]);
  const columns = new Map([[hub, 0]]);
  const sides = { left: 0, right: 0 };
  const queue = [hub];
  for (const box of queue) {
    for (const next of boxes.filter((other) => neighbours.get(box).has(other) && !columns.has(other))) {
      let side = Math.sign(columns.get(box));
      if (side === 0) side = (boxes.indexOf(next) < boxes.indexOf(hub) && sides.left <= sides.right) || sides.right > sides.left ? -1 : 1;
      sides[side < 0 ? "left" : "right"] += 1;
      columns.set(next, columns.get(box) + side);
      queue.push(next);
    }
  }
  // What is connected to nothing stands below the middle.
  for (const box of boxes) if (!columns.has(box)) columns.set(box, 0);
  return columns;
}

/** Places boxes and nodes, and says how large it all is. */
function layOut(nodes, pairs) {
  const columns = columnsOf(nodes, pairs);
  const partner = (node) => pairs.flatMap(([one, other]) => (one === node ? [other] : other === node ? [one] : []));
  const boxes = [...columns].map(([netns, column]) => {
    const own = nodes.filter((node) => node.netns === netns);
    const sides = { "-1": [], 0: [], 1: [] };
    for (const node of own) {
      const far = partner(node).map((other) => Math.sign(columns.get(other.netns) - column)).find((side) => side !== 0);
      sides[node.isBridge ? 0 : far ?? 0].push(node);
    }
    const used = [-1, 0, 1].map((side) => sides[side]).filter((side) => side.length > 0);
    const rows = Math.max(...used.map((side) => side.length));
    return { netns, column, used, width: used.length * NODE.width + (used.length - 1) * NODE.apart + 2 * BOX.pad,
      height: rows * (NODE.height + NODE.gap) - NODE.gap + 2 * BOX.pad + BOX.head };
  });
  const order = [...new Set(boxes.map((box) => box.column))].sort((one, other) => one - other);
  const heightOf = (column) => boxes.filter((box) => box.column === column).reduce((sum, box) => sum + box.height + BOX.pad, -BOX.pad);
  const height = Math.max(...order.map(heightOf));
  let x = 2;
  for (const column of order) {
    const width = Math.max(...boxes.filter((box) => box.column === column).map((box) => box.width));
    let y = 2 + (height - heightOf(column)) / 2;
    for (const box of boxes.filter((box) => box.column === column)) {
      Object.assign(box, { x: x + (width - box.width) / 2, y });
      box.used.forEach((side, place) => {
        const free = box.height - BOX.head - 2 * BOX.pad - (side.length * (NODE.height + NODE.gap) - NODE.gap);
        side.forEach((node, row) => Object.assign(node, { x: box.x + BOX.pad + place * (NODE.width + NODE.apart),
          y: y + BOX.head + BOX.pad + free / 2 + row * (NODE.height + NODE.gap) }));
      });
      y += box.height + BOX.pad;
    }
    x += width + BOX.apart;
  }
  return { boxes, width: x - BOX.apart + 2, height: height + 4 };
}

/** A line from the side of one node to the facing side of another. */
function lineBetween(one, other) {
  const [left, right] = one.x <= other.x ? [one, other] : [other, one];
  const [y1, y2] = [left.y + NODE.height / 2, right.y + NODE.height / 2];
  if (right.x - left.x < NODE.width) {
    const x = left.x + NODE.width;
    return `M${x} ${y1}C${x + 40} ${y1} ${x + 40} ${y2} ${right.x + NODE.width} ${y2}`;
  }
  const [x1, x2] = [left.x + NODE.width, right.x];
  const bend = Math.min(60, (x2 - x1) / 2);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

/** A text that has no more room than this many letters; all of it is in the title of its place. */
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function drawNode(node, search) {
  const label = `${data.netns[node.netns]}/${node.name}`;
  const words = [node.isBridge && "bridge", node.target && "traced", node.packets !== undefined && counted(node.packets, "packet"), ...node.findings.map((finding) => SIGNS[finding.class][0])];
  const go = () => search(`dev:"${unquoted(label)}"`);
  const badges = [...new Set(node.findings.map((finding) => finding.class))].map((kind, place) =>
    draw("path", { class: `badge is-${kind}`, d: SIGNS[kind][1], transform: `translate(${node.x + NODE.width - 12 - place * 20} ${node.y - 9}) scale(1.2)` }));
  const at = { x: node.x + 10, class: "name" };
  const node_class = ["node", node.isBridge && "bridge", node.target && "target", node.dev === undefined && "passive"].filter(Boolean).join(" ");
  const reach = node.dev === undefined ? {} : { tabindex: "0", role: "button", onclick: go, onkeydown: (event) => event.key === "Enter" && go() };
  return draw("g", { class: node_class, "aria-label": `${label}: ${words.filter(Boolean).join(", ")}`, ...reach },
    draw("title", {}, `${label}: ${words.filter(Boolean).join(", ")}`),
    draw("rect", { x: node.x, y: node.y, width: NODE.width, height: NODE.height, rx: node.isBridge ? 3 : 9 }),
    draw("text", { ...at, y: node.y + 16 }, short(node.name, 19)),
    draw("text", { x: node.x + 10, y: node.y + 30, class: "note" }, short(words.filter(Boolean).join(" · "), 27)), ...badges);
}

function drawTopology(search) {
  const place = byId("map");
  for (const line of data.about.preface.slice(1)) place.append(el("p", { class: "dim" }, line));
  if (devices.length === 0) {
    place.append(el("p", { class: "dim" }, "No packet was seen at a device, so there is nothing to draw."));
    return;
  }
  const nodes = nodesOf();
  const nodeOf = (dev) => nodes.find((node) => node.dev === dev);
  const known = data.links.map((link) => ({ ...link, one: nodeOf(link.from), other: nodeOf(link.to) })).filter((link) => link.one && link.other);
  const pairs = new Map();
  const passed = new Map();
  for (const link of known) {
    const key = [link.from, link.to].sort((one, other) => one - other).join(" ");
    const isPort = link.one.master && (link.one.master === link.other.master || link.one.master === link.other) || link.other.master === link.one;
    const lines = link.pair ? pairs : passed;
    if (!link.pair && isPort) continue;
    lines.set(key, { one: link.one, other: link.other, packets: (lines.get(key)?.packets ?? 0) + link.packets });
  }
  for (const key of pairs.keys()) passed.delete(key);
  const { boxes, width, height } = layOut(nodes, [...pairs.values()].map((pair) => [pair.one, pair.other]));
  const title = (words, line) => draw("g", {}, draw("title", {}, words), ...line);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": "Namespaces, devices, and what connects them" },
    ...boxes.map((box) => draw("g", { class: "netns" }, draw("title", {}, data.netns[box.netns]),
      draw("rect", { x: box.x, y: box.y, width: box.width, height: box.height, rx: 6 }),
      draw("text", { x: box.x + BOX.pad, y: box.y + 20 }, short(data.netns[box.netns], Math.floor(box.width / 9))))),
    ...nodes.filter((node) => node.master).map((node) => draw("path", { class: "port", d: lineBetween(node, node.master) })),
    ...[...passed.values()].map((link) => title(`${counted(link.packets, "packet")} went from one to the other`, [draw("path", { class: "passed", d: lineBetween(link.one, link.other) })])),
    ...[...pairs.values()].map((link) => title(`a pair: ${counted(link.packets, "packet")}`, [
      draw("path", { class: "pair", d: lineBetween(link.one, link.other) }), draw("path", { class: "pair inner", d: lineBetween(link.one, link.other) })])),
    ...nodes.map((node) => drawNode(node, search)));
  const key = (kind, words) => el("span", {}, draw("svg", { width: 34, height: 10, "aria-hidden": "true" }, draw("path", { class: kind, d: "M1 5H33" }), kind === "pair" && draw("path", { class: "pair inner", d: "M1 5H33" })), words);
  place.append(el("div", { class: "scroll" }, svg),
    el("p", { class: "legend dim" }, pairs.size > 0 && key("pair", "pair: sent into one end, received from the other"), nodes.some((node) => node.master) && key("port", "port of a bridge"), passed.size > 0 && key("passed", "packets went on there"),
      devices.length > MOST_DEVICES && el("span", {}, `The ${MOST_DEVICES} busiest of ${devices.length} devices are drawn.`)));
}
