//! A web server to fetch from.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::{
    lab::{SERVER, within},
    machine::wait_until,
};

/// A web server in the server's namespace.
pub struct WebServer(Child);

impl WebServer {
    /// One that serves this folder on port 8000, once it listens.
    pub fn start(folder: &str) -> WebServer {
        let program = ["/usr/bin/python3", "python3"].into_iter().find(|path| fs::exists(path).unwrap());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", SERVER.0, program.unwrap_or("python3"), "-m", "http.server", "8000"]);
        command.args(["--bind", SERVER.1, "--directory", folder]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Seen by its socket, not by a request: that would be a packet on the path.
        wait_until("the web server listens", || {
            assert_eq!(child.try_wait().unwrap(), None, "the web server ended");
            within(SERVER.0, || fs::read_to_string("/proc/thread-self/net/tcp").unwrap())
                .contains(":1F40 00000000:0000 0A")
        });
        WebServer(child)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
