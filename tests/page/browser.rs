//! A browser without a window: opens a page, lets its script run, and hands back what is on it.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

const NAMES: [&str; 5] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell"];

/// A Chromium of this machine.
#[derive(Clone, Debug)]
pub struct Browser(PathBuf);

/// A page after its script has run.
#[derive(Debug)]
pub struct Dom {
    /// The elements, less the page's own data and script.
    pub html: String,
    /// The text, as a person would read it.
    pub text: String,
    /// What the browser complained of: errors, and what the page's policy forbade.
    pub complaints: Vec<String>,
}

impl Browser {
    /// The first that is on the PATH.
    pub fn find() -> Option<Browser> {
        let path = env::var_os("PATH")?;
        let places = env::split_paths(&path).flat_map(|folder| NAMES.map(|name| folder.join(name)));
        places.into_iter().find(|place| place.is_file()).map(Browser)
    }

    /// Opens a page at an address within it.
    pub fn open(&self, page: &str, address: &str) -> Result<Dom, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.html");
        fs::write(&file, page).unwrap();
        let mut command = Command::new(&self.0);
        // The sandbox is for pages from elsewhere, and root has none.
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1400,900",
            "--enable-logging=stderr",
        ]);
        // The page's own clock: what it does a little later is done too.
        command
            .args(["--virtual-time-budget=20000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", folder.path().display()));
        let done = command.arg(format!("file://{}{address}", file.display())).stdin(Stdio::null()).output();
        let done = done.map_err(|error| format!("{} does not start: {error}", self.0.display()))?;
        let html = String::from_utf8_lossy(&done.stdout);
        let said = String::from_utf8_lossy(&done.stderr);
        if !html.contains("data-ready") {
            return Err(format!("the page did not get ready; {} said: {said}", self.0.display()));
        }
        let complaints = said.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
        let html = without(&without(&html, "<script", "</script>"), "<style", "</style>");
        Ok(Dom { text: text(&html), html, complaints })
    }
}

impl Dom {
    /// How often something is in the elements.
    pub fn count(&self, what: &str) -> usize {
        self.html.matches(what).count()
    }

    /// The number of the packet that is open.
    pub fn selected(&self) -> Option<u64> {
        let (_, row) = self.html.split_once("aria-selected=\"true\"")?;
        let (_, number) = row.split_once("class=\"n\">#")?;
        number.split('<').next()?.parse().ok()
    }
}

/// The same without what is between these two, and without them.
fn without(text: &str, begin: &str, end: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once(begin) {
        kept.push_str(before);
        rest = after.split_once(end).map_or("", |(_, after)| after);
    }
    kept + rest
}

/// Texts of elements, one behind the other.
fn text(html: &str) -> String {
    let mut text = String::new();
    for piece in html.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, words)| words));
    }
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&")
}
