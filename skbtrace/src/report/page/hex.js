// The bytes of a payload before and after its change.

const LINE = 16;
const bytesOf = (digits) => digits.match(/../g) ?? [];

function hexLine(mark, offset, bytes, other) {
  const letters = bytes.map((byte) => {
    const code = Number.parseInt(byte, 16);
    return code >= 0x20 && code <= 0x7e ? String.fromCharCode(code) : ".";
  });
  const differs = (place) => mark && bytes[place] !== other[place];
  const cell = (text, place) => (differs(place) ? el("mark", {}, text) : text);
  const names = { "-": "before", "+": "after" };
  return el("tr", { class: names[mark] ?? "" },
    el("th", { scope: "row" }, mark && el("abbr", { title: names[mark] }, mark === "-" ? "−" : "+")),
    el("td", { class: "offset" }, String(offset)),
    el("td", { class: "bytes" }, ...bytes.map((byte, place) => el("span", {}, cell(byte, place)))),
    el("td", { class: "letters" }, ...letters.map(cell)));
}

function hexOf(change) {
  const [from, to] = [hops[change.from].name, hops[change.to].name];
  if (!change.before) {
    return el("section", { class: "hex" }, el("h4", {}, "Bytes of the payload"), el("p", { class: "dim" }, change.why));
  }
  const [before, after] = [bytesOf(change.before), bytesOf(change.after)];
  const body = el("tbody");
  for (let at = 0; at < before.length; at += LINE) {
    const [old, now] = [before.slice(at, at + LINE), after.slice(at, at + LINE)];
    const offset = change.offset + at;
    if (old.every((byte, place) => byte === now[place])) body.append(hexLine("", offset, old, old));
    else body.append(hexLine("-", offset, old, now), hexLine("+", offset, now, old));
  }
  return el("section", { class: "hex" }, el("h4", {}, "Bytes of the payload, ", el("span", { class: "key before" }, "−"), ` at ${from}, `, el("span", { class: "key after" }, "+"), ` at ${to}`),
    el("div", { class: "scroll" }, el("table", { class: "mono" }, body)));
}
