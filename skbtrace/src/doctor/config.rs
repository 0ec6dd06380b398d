//! How the running kernel was built, where it or its package tells.

use std::{collections::HashSet, fs, io::Read as _};

use flate2::read::GzDecoder;

/// The options that are on, built in or as a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The file that says so.
    pub path: String,
    /// Their names, without `CONFIG_`.
    pub on: HashSet<String>,
}

impl Config {
    /// Reads it from the kernel itself, or else from where distributions put it.
    #[must_use]
    pub fn read(release: &str) -> Option<Config> {
        let own = "/proc/config.gz";
        let unpacked = || {
            let mut text = String::new();
            GzDecoder::new(fs::File::open(own).ok()?).read_to_string(&mut text).ok()?;
            Some((own.to_owned(), text))
        };
        let plain = |path: String| Some((path.clone(), fs::read_to_string(path).ok()?));
        let (path, text) = unpacked()
            .or_else(|| plain(format!("/boot/config-{release}")))
            .or_else(|| plain(format!("/lib/modules/{release}/config")))
            .or_else(|| plain(format!("/usr/lib/modules/{release}/config")))?;
        Some(Config { path, ..Config::parse(&text) })
    }

    /// Picks the lines that turn an option on.
    #[must_use]
    pub fn parse(text: &str) -> Config {
        let on = |line: &str| {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            matches!(value, "y" | "m").then(|| name.to_owned())
        };
        Config { path: String::new(), on: text.lines().filter_map(on).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn options_that_are_on_are_picked() {
        let config =
            Config::parse("# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=m\nCONFIG_D=n\nCONFIG_E=\"y\"\nB=y\n\n");
        let mut on: Vec<&str> = config.on.iter().map(String::as_str).collect();
        on.sort_unstable();
        assert_eq!(on, ["B", "C"]);
    }
}
