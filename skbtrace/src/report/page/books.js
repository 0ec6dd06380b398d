// The books: every packet in one column, every loss counted.

const COLUMNS = ["delivered", "dropped", "incomplete", "waiting", "left", "merged", "consumed", "tapped"];
const ALSO = { garbled: "garbled", retransmissions: "retransmissions", branches: "clones and parts", loopback: "through loopback", elsewhere: "elsewhere on the segment", events: "events", late_events: "events after their packet was given up" };
const LOSSES = { ring_full: "events lost: the ring was full", unread: "events sent and never read", map_full: "packets not followed: too many at once", unreadable: "packets unreadable", missed_probes: "hits missed by the kernel", read_failed: "events partly unreadable" };

function rows(entries, type) {
  return entries.map(([count, words, kind]) =>
    el("tr", {}, el("td", { class: "number" }, count.toLocaleString("en")), el("td", {}, kind && sign(kind), kind && " ", words)));
}

function drawBooks() {
  const place = byId("book-list");
  const books = data.books;
  if (!books) {
    place.append(el("p", { class: "dim" }, "There are none: the recording breaks off before its end."));
    return;
  }
  const table = (title, entries) => el("table", {}, el("caption", {}, title), el("tbody", {}, ...rows(entries)));
  const named = (words) => Object.entries(words).map(([key, word]) => [books[key] ?? books.losses[key] ?? 0, word]);
  const columns = COLUMNS.filter((key) => books[key] > 0 || key === "delivered").map((key) => [books[key], SIGNS[key][0], key]);
  place.append(
    table("Packets", [[books.packets, "packets, each of them"], ...columns]),
    table("Also", named(ALSO).filter(([count]) => count > 0)),
    table("Not seen", named(LOSSES).filter(([count], index) => count > 0 || index === 0)),
  );
  if (books.drop_reasons.length) {
    place.append(table("Dropped, by the kernel’s reason", books.drop_reasons.map(({ count, reason }) => [count, reason ?? "no reason given"])));
  }
  if (books.hops.length) {
    const keys = [...new Set(books.hops.flatMap((hop) => Object.keys(hop)))].filter((key) => key !== "hop");
    place.append(el("details", {}, el("summary", {}, "Every hop: how often it ran, and what became of each hit"),
      el("div", { class: "scroll" }, el("table", {},
        el("thead", {}, el("tr", {}, el("th", {}, "hop"), ...keys.map((key) => el("th", {}, key.replaceAll("_", " "))))),
        el("tbody", {}, ...books.hops.map((hop) => el("tr", {}, el("td", { class: "mono" }, hop.hop),
          ...keys.map((key) => el("td", { class: "number" }, hop[key] === undefined ? "" : hop[key].toLocaleString("en"))))))))));
  }
}
