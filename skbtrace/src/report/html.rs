//! The page around its data. Everything but the data is the same in every page, so that no name can break out of anything but
//! the data: and that is JSON without a `<`, in an element that no browser runs. A policy in the page forbids scripts and styles
//! but these, by their digests, and all that would need a network.

use sha2::{Digest as _, Sha256};

const HEAD: &str = include_str!("page/head.html");
const BODY: &str = include_str!("page/body.html");

const STYLE: &str = concat!(
    include_str!("page/base.css"),
    include_str!("page/findings.css"),
    include_str!("page/topology.css"),
    include_str!("page/packets.css"),
    include_str!("page/lanes.css"),
    include_str!("page/latency.css"),
    include_str!("page/print.css"),
);

/// In a function of their own, so that no name of theirs meets one of the browser's.
const SCRIPT: &str = concat!(
    "(() => {\n\"use strict\";\n",
    include_str!("page/dom.js"),
    include_str!("page/format.js"),
    include_str!("page/data.js"),
    include_str!("page/query.js"),
    include_str!("page/findings.js"),
    include_str!("page/topology.js"),
    include_str!("page/list.js"),
    include_str!("page/lanes.js"),
    include_str!("page/hex.js"),
    include_str!("page/latency.js"),
    include_str!("page/books.js"),
    include_str!("page/main.js"),
    "})();\n",
);

/// A page with this data.
pub(super) fn html(json: &str) -> String {
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        source(SCRIPT),
        source(STYLE)
    );
    let data = inert(json);
    format!(
        "{HEAD}<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n<style>{STYLE}</style>\n{BODY}\
         <script type=\"application/json\" id=\"data\">{data}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

/// JSON as it may stand in HTML: what could end its element, or begin another, only stands in strings, and those have a way to
/// write it with other letters. The two separators end a line to some readers of scripts.
fn inert(json: &str) -> String {
    let mut inert = String::with_capacity(json.len() + json.len() / 64);
    for letter in json.chars() {
        match letter {
            '<' => inert.push_str("\\u003c"),
            '>' => inert.push_str("\\u003e"),
            '&' => inert.push_str("\\u0026"),
            '\u{2028}' => inert.push_str("\\u2028"),
            '\u{2029}' => inert.push_str("\\u2029"),
            letter => inert.push(letter),
        }
    }
    inert
}

/// How a policy names a script or a style: by its digest.
fn source(text: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(text.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
