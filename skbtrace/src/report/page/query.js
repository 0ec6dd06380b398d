// What is found. A query is words that all must fit; each word may begin with what it is about.

const ABOUT = {
  "is:": "garbled, dropped, incomplete, delivered, …: what became of it; several with commas",
  "dev:": "was at a device, by its name or netns/name",
  "hop:": "passed a function or tracepoint of the kernel",
  "took>": "took longer than 1ms, 250us, …; took< is the other way round",
  "#": "this number, or from one to another: #7, #7-20",
  "finding:": "belongs to the finding with this number",
};

/** Quotes hold a word together that has spaces in it; they are no part of it, nor of a name. */
const unquoted = (text) => text.replaceAll('"', "");
const wordsOf = (query) => (query.match(/-?(?:[a-z]+[:<>])?"[^"]*"|\S+/g) ?? []).map(unquoted);

/** Places of shapes for which something holds: what passes there need not be looked at step by step. */
const shapesWhere = (holds) => new Set(shapes.flatMap((shape, place) => (holds(shape) ? [place] : [])));

function passes(packet, wanted) {
  for (const life of livesOf(packet)) {
    for (let at = 0; at < life.steps.length; at += 2) if (wanted.has(life.steps[at])) return true;
  }
  return false;
}

/** A test of packets for one word. */
function testOf(word) {
  if (word.startsWith("-") && word.length > 1) {
    const test = testOf(word.slice(1));
    return (packet) => !test(packet);
  }
  const lower = word.toLowerCase();
  const [, from, to] = /^#(\d+)(?:-(\d+))?$/.exec(word) ?? [];
  if (from) return (packet) => packet.n >= Number(from) && packet.n <= Number(to ?? from);
  const [, side, time] = /^took([<>])(.+)$/.exec(lower) ?? [];
  const limit = time && nanoseconds(time);
  if (limit !== undefined) return (packet) => (side === ">" ? packet.took > limit : packet.took < limit);
  const [, about, value] = /^(is|dev|hop|finding):(.*)$/.exec(lower) ?? [];
  if (about === "is") {
    const kinds = value.split(",");
    return (packet) => kinds.includes(kindOf(packet)) || kinds.includes(packet.verdict);
  }
  if (about === "finding") {
    const finding = data.findings[Number(value) - 1];
    return (packet) => finding !== undefined && packetsOf(finding).has(packet.n);
  }
  if (about === "dev") {
    const at = new Set(devices.flatMap((_, place) => (unquoted(deviceLabel(place)).toLowerCase().includes(value) ? [place] : [])));
    const wanted = shapesWhere((shape) => at.has(shape.dev));
    return (packet) => passes(packet, wanted);
  }
  if (about === "hop") {
    const wanted = shapesWhere((shape) => hops[shape.hop].name.toLowerCase().includes(value));
    return (packet) => passes(packet, wanted);
  }
  // Any other word: in what is said of the packet, or of one of its hops.
  const said = shapesWhere((shape) =>
    [hops[shape.hop].name, shape.dev !== undefined && deviceLabel(shape.dev), shape.within, ...(shape.says ?? [])].some(
      (text) => text && text.toLowerCase().includes(lower),
    ),
  );
  return (packet) => textOf(packet).includes(lower) || passes(packet, said);
}

/** Places of the packets that a query finds. */
function find(query) {
  const tests = wordsOf(query).map(testOf);
  const found = [];
  for (let place = 0; place < packets.length; place += 1) {
    if (tests.every((test) => test(packets[place]))) found.push(place);
  }
  return found;
}

/** The query with a kind of packets more in it, or less. */
function toggled(query, kind) {
  const words = query.match(/\S+/g) ?? [];
  const old = words.find((word) => word.startsWith("is:"));
  const kinds = new Set(old ? old.slice(3).split(",").filter(Boolean) : []);
  if (!kinds.delete(kind)) kinds.add(kind);
  const rest = words.filter((word) => word !== old);
  return (kinds.size ? [`is:${[...kinds].join(",")}`, ...rest] : rest).join(" ");
}
