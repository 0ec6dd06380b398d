// The recording, as the page holds it, and how to walk through it.

const data = JSON.parse(byId("data").textContent);
const { packets, shapes, hops, devices } = data;

/** Devices as a person would name them. */
const deviceLabel = (place) => `${data.netns[devices[place].netns]}/${devices[place].name}`;

/** A packet's own steps, or a branch's: what each is, and the nanoseconds before it. */
function* stepsOf(life) {
  for (let at = 0; at < life.steps.length; at += 2) yield [shapes[life.steps[at]], life.steps[at + 1]];
}

/** A packet and its branches, depth first. */
function* livesOf(life) {
  yield life;
  for (const branch of life.branches ?? []) yield* livesOf(branch);
}

/** What is to be said of a packet first. */
function kindOf(packet) {
  if (packet.changed) return "garbled";
  return packet.verdict === "delivered" && packet.held !== undefined ? "delayed" : packet.verdict;
}
const isWell = (packet) => !["garbled", "dropped", "incomplete", "delayed"].includes(kindOf(packet));

/** The devices where a life was, in their order, and the steps there. A step that knows no device is where the one before was. */
function visitsOf(life) {
  const visits = [];
  let place = 0;
  for (const [shape] of stepsOf(life)) {
    const last = visits.at(-1);
    if (!hops[shape.hop].end) {
      if (last && (shape.dev === undefined || last.dev === undefined || last.dev === shape.dev)) {
        last.dev ??= shape.dev;
        last.steps.push(place);
      } else {
        visits.push({ dev: shape.dev, steps: [place] });
      }
    }
    place += 1;
  }
  return visits;
}

/** All that words can be found in. */
function textOf(packet) {
  if (packet.text === undefined) {
    const texts = [`#${packet.n}`, packet.is, packet.changed?.says];
    for (const life of livesOf(packet)) texts.push(life.ended, life.words);
    packet.text = texts.filter(Boolean).join("\n").toLowerCase();
  }
  return packet.text;
}

const byNumber = new Map(packets.map((packet, place) => [packet.n, place]));

/** Where a packet spent most time between these two hops: the place of the second, and how long. */
function heldBetween(packet, from, to) {
  const worst = { ns: -1 };
  let since;
  let place = 0;
  for (const [shape, ns] of stepsOf(packet)) {
    if (since !== undefined) since += ns;
    if (hops[shape.hop].name === to && since > worst.ns) Object.assign(worst, { ns: since, place });
    if (hops[shape.hop].name === from) since = 0;
    place += 1;
  }
  return worst;
}

/** Packets that were held too long are those that were held longest; of some alone that cannot be said. */
function heldIn(finding) {
  const held = packets.map((packet) => ({ packet, ...heldBetween(packet, finding.from, finding.to) })).filter(({ ns }) => ns >= 0);
  if (held.length < finding.passed) return undefined;
  const longest = held.sort((one, other) => other.ns - one.ns).slice(0, finding.count);
  for (const { packet, place } of longest) packet.held ??= place;
  return longest.map(({ packet }) => packet.n).sort((one, other) => one - other);
}

/** The packets of a finding. Those that it names, or, where they can be told from all others, all of them. */
function packetsOf(finding) {
  if (finding.all) return finding.all;
  const held = finding.class === "delayed" ? heldIn(finding) : undefined;
  if (held) return (finding.all = new Set(held));
  const alike = packets.filter((packet) => {
    if (finding.class === "garbled") {
      return packet.changed?.all.some((change) => hops[change.from].name === finding.from && hops[change.to].name === (finding.to ?? finding.from));
    }
    if (finding.class !== "dropped" || packet.verdict !== "dropped") return false;
    const last = [...stepsOf(packet)].findLast(([shape]) => !hops[shape.hop].end);
    const reasons = finding.reasons.every((reason) => packet.ended.includes(reason));
    return last && hops[last[0].hop].name === finding.from && reasons;
  });
  const named = [...finding.packets, finding.last].filter((number) => byNumber.has(number));
  finding.all = new Set(alike.length === finding.count ? alike.map((packet) => packet.n) : named);
  return finding.all;
}
data.findings.forEach(packetsOf);
