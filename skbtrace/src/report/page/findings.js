// What was found, first of all; and before it what is to be known of the recording itself.

function banner(kind, title, ...lines) {
  return el("div", { class: `banner is-${kind}`, role: "note" }, sign(kind), el("div", {}, el("strong", {}, title), ...lines.map((line) => el("p", {}, line))));
}

function drawBanners() {
  const banners = byId("banners");
  if (data.damage) {
    banners.append(banner("incomplete", "This recording is damaged or cut short", data.damage,
      "The page shows what comes before. There are no books: what was found is what was found until there."));
  }
  if (data.books && !data.books.every_packet_complete) {
    banners.append(banner("incomplete", "Not everything was seen", "Packets of which a part was lost are INCOMPLETE. The books at the end count every loss."));
  }
  if (data.left_out) {
    banners.append(banner("incomplete", `${counted(data.left_out, "packet")} left out`,
      "The page would be too large with them. `skbtrace report --limit`, or its filters, choose others; findings and books are those of all packets."));
  }
  const chosen = packets.length + data.left_out;
  if (data.books && data.books.packets > chosen) {
    banners.append(banner("incomplete", `${counted(chosen, "packet")} of ${data.books.packets.toLocaleString("en")} chosen`,
      "Whoever made this report chose them by number, protocol, address or port. Findings and books are those of all packets."));
  }
  if (data.notices.length) {
    banners.append(el("details", { class: "notices" }, el("summary", {}, `${counted(data.notices.length, "notice")} of the run`),
      el("ul", {}, ...data.notices.map((notice) => el("li", {}, notice)))));
  }
}

const TITLES = { evidence: "Evidence", cause: "Cause", advice: "What to do" };

/** A finding's lines, those of one kind together. */
function linesOf(finding) {
  const list = el("dl");
  for (const [what, title] of Object.entries(TITLES)) {
    const lines = finding.lines.filter(([kind]) => kind === what).map(([, line]) => line);
    if (lines.length === 0) continue;
    const entries = lines.map((line) => {
      if (what !== "advice") return el("dd", {}, line);
      const code = el("code", {}, line);
      const button = el("button", { type: "button", class: "copy", onclick: () => copy(code, button) }, "Copy");
      return el("dd", { class: "advice" }, code, button);
    });
    list.append(el("div", { class: what }, el("dt", {}, title), ...entries));
  }
  return list;
}

function drawFindings(show) {
  drawBanners();
  const list = byId("finding-list");
  data.findings.forEach((finding, place) => {
    const inPage = packetsOf(finding).size;
    const open = el("button", { type: "button", onclick: () => show(place + 1, [...packetsOf(finding)][0]) },
      inPage === finding.count ? `Show ${inPage === 1 ? "it" : `all ${inPage}`}` : `Show ${inPage} of ${finding.count}`);
    list.append(el("li", { class: `finding is-${finding.class}` },
      el("h3", {}, sign(finding.class, 18), el("span", {}, finding.headline), inPage > 0 && open), linesOf(finding)));
  });
  if (data.findings.length === 0) {
    const all = data.damage ? "Nothing was found until there."
      : data.packets.length === 0 ? "No packet is here: was there traffic, and did a filter let it pass?"
      : data.packets.some((packet) => packet.verdict === "dropped")
        ? "Nothing was found. What was dropped here, a kernel drops in the course of a day’s work."
        : "Nothing was found: no packet was garbled, dropped, held up, doubled or overtaken.";
    list.replaceWith(el("p", { class: "clean" }, data.packets.length > 0 && sign("delivered", 18), ` ${all}`));
  }
}
