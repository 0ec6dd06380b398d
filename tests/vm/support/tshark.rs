//! Wireshark's opinion of a file. Whatever it says beside what it was asked for fails the test.

use std::process::{Command, Output};

/// What a program of Wireshark's prints, when it is content.
fn output(program: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    let said: Vec<&str> = stderr
        .lines()
        .filter(|line| *line != "Running as user \"root\" and group \"root\". This could be dangerous.")
        .collect();
    assert!(status.success() && said.is_empty(), "{program} {arguments:?}: {status}: {said:#?}");
    String::from_utf8(stdout).unwrap()
}

/// The fields of each frame, in the file's order; several values of one field are joined by commas.
pub fn fields(file: &str, fields: &[&str]) -> Vec<Vec<String>> {
    // Every frame for itself: what TCP makes of the same segment at twenty hops is another matter.
    let mut arguments = vec!["-n", "-r", file, "-T", "fields", "-E", "separator=/t"];
    for field in fields {
        arguments.extend(["-e", field]);
    }
    let text = output("tshark", &arguments);
    text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

/// How many frames it takes for malformed.
pub fn malformed(file: &str) -> usize {
    output("tshark", &["-n", "-r", file, "-Y", "_ws.malformed"]).lines().count()
}

/// Packets and interfaces as capinfos counts them.
pub fn counts(file: &str) -> (u64, usize) {
    let text = output("capinfos", &["-M", "-c", "-I", file]);
    let number = |label: &str| -> u64 {
        let (_, rest) = text.split_once(label).unwrap_or_else(|| panic!("no {label:?} in {text}"));
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("Number of packets:"), number("Number of interfaces in file:") as usize)
}
