// Elements. All text goes in as text: names that people chose are never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== "" && child !== false));
  return node;
}

/** An HTML element; children are nodes or texts. */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const byId = (id) => document.getElementById(id);

/** What became of packets: the word, the sign, and the path of the sign in a square of 16. Never a colour alone. */
const SIGNS = {
  garbled: ["GARBLED", "M8 1 15 8 8 15 1 8Z"],
  dropped: ["DROPPED", "M3 1 8 6 13 1 15 3 10 8 15 13 13 15 8 10 3 15 1 13 6 8 1 3Z"],
  incomplete: ["INCOMPLETE", "M8 1A7 7 0 0 1 8 15V12.6A4.6 4.6 0 0 0 8 3.4ZM6 1.3V3.8L3.9 5.9 1.6 5ZM1.1 6.6 3.6 7.4V9L1.2 9.8ZM1.8 11.4 4 10.4 6 12.2V14.7Z"],
  delayed: ["DELAYED", "M3 1H13V4L9.5 8 13 12V15H3V12L6.5 8 3 4Z"],
  duplicated: ["DUPLICATED", "M1 1H10V4H4V10H1ZM6 6H15V15H6Z"],
  reordered: ["REORDERED", "M1 4H10V1L15 5.5 10 10V7H1ZM1 11.5H9V13.5H1Z"],
  delivered: ["delivered", "M1.5 8.5 3.5 6.5 6.5 9.5 12.5 2.5 14.5 4.5 6.5 13.5Z"],
  waiting: ["in flight", "M1 6.5H4V9.5H1ZM6.5 6.5H9.5V9.5H6.5ZM12 6.5H15V9.5H12Z"],
  left: ["left", "M1 6.5H9V2.5L15 8 9 13.5V9.5H1Z"],
  merged: ["merged", "M2 1H5V6L8 9 11 6V1H14V7.5L9.5 12V15H6.5V12L2 7.5Z"],
  consumed: ["freed on the way", "M4 4H12V12H4Z"],
  tapped: ["tapped", "M6.5 1H9.5V9H13L8 15 3 9H6.5Z"],
};

/** The sign of a word, as a drawing that readers of screens pass over: the word stands beside it. */
function sign(kind, size = 14) {
  const [, path] = SIGNS[kind] ?? SIGNS.consumed;
  const attributes = { class: `sign is-${kind}`, viewBox: "0 0 16 16", width: size, height: size, "aria-hidden": "true" };
  return draw("svg", attributes, draw("path", { d: path }));
}

/** Copies a text; where the browser does not allow that, it is selected instead. */
async function copy(node, button) {
  try {
    await navigator.clipboard.writeText(node.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(node);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
