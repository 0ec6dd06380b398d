// How long the packets that are shown took from each hop to the next: a histogram per pair of neighbours, all on one scale.

const BINS = 60;
const WIDTH = 300;
const HEIGHT = 22;

/** Times between neighbouring hops, of these packets: in the order of the path, as the books have them. */
function timesOf(found) {
  const pairs = new Map();
  const key = (from, to, waited) => `${from} ${to} ${waited ?? ""}`;
  for (const { from, to, waited } of data.books?.latency ?? []) pairs.set(key(from, to, waited), { from, to, waited, times: [] });
  const total = { from: "first hop", to: "delivery", times: [] };
  for (const place of found) {
    const packet = packets[place];
    if (packet.verdict === "delivered") total.times.push(packet.took);
    for (const life of livesOf(packet)) {
      let before;
      for (const [shape, since] of stepsOf(life)) {
        if (before && !shape.lost) {
          const [from, to] = [hops[before.hop].name, hops[shape.hop].name];
          const name = key(from, to, shape.waited);
          if (!pairs.has(name)) pairs.set(name, { from, to, waited: shape.waited, times: [] });
          pairs.get(name).times.push(since);
        }
        before = shape;
      }
    }
  }
  const all = [...pairs.values(), total].filter((pair) => pair.times.length > 0);
  for (const pair of all) {
    pair.times = Float64Array.from(pair.times).sort();
    pair.sum = pair.times.reduce((sum, time) => sum + time, 0);
  }
  return all;
}

/** The time that so many of a hundred did not exceed. */
const percentile = (times, percent) => times[Math.max(0, Math.ceil((times.length * percent) / 100) - 1)];

/** Nanoseconds to a place on the scale, which goes from decade to decade. */
function scaleOf(pairs) {
  const decade = (ns) => Math.log10(Math.max(1, ns));
  const low = Math.floor(Math.min(...pairs.map((pair) => decade(pair.times[0]))));
  const high = Math.max(low + 1, Math.ceil(Math.max(...pairs.map((pair) => decade(pair.times.at(-1))))));
  return { low, high, at: (ns) => ((decade(ns) - low) / (high - low)) * WIDTH };
}

function histogram(times, scale) {
  const bins = new Array(BINS + 1).fill(0);
  for (const time of times) bins[Math.floor((scale.at(time) / WIDTH) * BINS)] += 1;
  const most = Math.max(...bins);
  const bar = (count, place) => `M${(place * WIDTH) / BINS} ${HEIGHT}v${-Math.max(1.5, (count / most) * (HEIGHT - 2))}h${WIDTH / BINS - 0.8}V${HEIGHT}Z`;
  const bars = bins.flatMap((count, place) => (count > 0 ? [bar(count, place)] : [])).join("");
  const tick = (percent) => draw("path", { class: "tick", d: `M${scale.at(percentile(times, percent))} 0V${HEIGHT}` });
  const words = [50, 90, 99].map((percent) => `p${percent} ${duration(percentile(times, percent))}`).join(", ");
  return draw("svg", { class: "histogram", viewBox: `0 0 ${WIDTH + 6} ${HEIGHT}`, role: "img", "aria-label": words }, draw("path", { class: "bars", d: bars }), tick(50), tick(99));
}

function axis(scale) {
  const marks = [];
  for (let decade = scale.low; decade <= scale.high; decade += 1) {
    const anchor = decade === scale.low ? "start" : decade === scale.high ? "end" : "middle";
    marks.push(draw("text", { x: scale.at(10 ** decade), y: 12, "text-anchor": anchor }, duration(10 ** decade).replace(".0", "").replace(".00", "")));
  }
  return draw("svg", { class: "histogram axis", viewBox: `0 0 ${WIDTH + 6} 16` }, ...marks);
}

const ORDERS = { path: "in the order of the path", sum: "most time first" };

/** The table, of these packets, in this order. */
function drawLatency(found, order = "path") {
  const place = byId("latency-table");
  const pairs = timesOf(found);
  byId("latency-of").textContent = found.length === packets.length ? "" : `of the ${counted(found.length, "packet")} that the query finds`;
  if (pairs.length === 0) {
    place.replaceChildren(el("p", { class: "dim" }, "No packet passed two hops."));
    return;
  }
  const scale = scaleOf(pairs);
  if (order === "sum") pairs.sort((one, other) => other.sum - one.sum);
  const head = ["hop → hop", "packets", "p50", "p90", "p99", "max"].map((title, column) => el("th", { scope: "col", class: column ? "number" : "" }, title));
  const body = pairs.map((pair) => {
    const number = (text) => el("td", { class: "number" }, text);
    const at = (percent) => number(duration(percentile(pair.times, percent)));
    return el("tr", { class: pair.from === "first hop" ? "total" : "" },
      el("th", { scope: "row" }, el("code", {}, pair.from), " → ", el("code", {}, pair.to), pair.waited && el("small", {}, `waiting in ${QUEUES[pair.waited]}`)),
      number(pair.times.length.toLocaleString("en")), at(50), at(90), at(99), number(duration(pair.times.at(-1))), el("td", {}, histogram(pair.times, scale)));
  });
  const choice = Object.entries(ORDERS).map(([name, words]) =>
    el("button", { type: "button", "aria-pressed": String(name === order), onclick: () => drawLatency(found, name) }, words));
  place.replaceChildren(
    el("p", { class: "choice" }, ...choice, el("span", { class: "dim" }, "Upright lines: p50 and p99. The scale is logarithmic.")),
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, ...head, el("td", {}, axis(scale)))), el("tbody", {}, ...body))));
}
