// Times and counts as `skbtrace show` writes them.

/** 640 ns, 3.1 µs, 412 µs, 21.7 ms, 1.20 s. */
function duration(ns) {
  if (ns < 1000) return `${ns} ns`;
  const units = [["µs", 1e3], ["ms", 1e6], ["s", 1e9]];
  const rounded = (size) => Math.floor((ns + size / 2) / size);
  const [unit, size] = units.find(([, size]) => rounded(size) < 1000) ?? units[2];
  const tenths = rounded(size / 10);
  if (tenths >= 1000) return `${rounded(size)} ${unit}`;
  return unit === "s" ? `${(rounded(size / 100) / 100).toFixed(2)} s` : `${(tenths / 10).toFixed(1)} ${unit}`;
}

const UNITS = { ns: 1, us: 1e3, "µs": 1e3, ms: 1e6, s: 1e9 };

/** The nanoseconds of `1.5ms`; undefined where there is no such time. */
function nanoseconds(text) {
  const [, number, unit] = /^([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s)$/.exec(text) ?? [];
  return unit && Number(number) * UNITS[unit];
}

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

/** Wall-clock time, in UTC, so many nanoseconds after the first packet. */
function wallClock([seconds, ns], after) {
  const all = ns + after;
  const date = new Date((seconds + Math.floor(all / 1e9)) * 1000);
  if (Number.isNaN(date.getTime())) return "";
  const micros = Math.floor((((all % 1e9) + 1e9) % 1e9) / 1000);
  return `${date.toISOString().slice(0, 19).replace("T", " ")}.${String(micros).padStart(6, "0")} UTC`;
}

const QUEUES = {
  backlog: "the CPU’s queue",
  veth_ring: "the veth’s ring",
  socket_backlog: "the socket’s backlog",
  socket: "the socket’s queue",
};
