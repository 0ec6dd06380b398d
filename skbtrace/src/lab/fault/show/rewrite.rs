//! A sender that writes to pages after it has given them to the kernel. sendfile and vmsplice lend the pages
//! themselves: what is on its way in a queue is what the page holds when it gets there, not what it held when it was
//! sent. The checksum of a veth is left to nobody, so nothing notices.

use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    time::Duration,
};

use nix::{
    fcntl::{SpliceFFlags, splice, vmsplice},
    sys::{
        memfd::{MFdFlags, memfd_create},
        sendfile::sendfile,
    },
};
use serde::Serialize;

use super::{CLIENT, Error, Notice, PORT, SERVER, failed, within};

/// How the sender lends its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewrite {
    /// Pages of a file, by sendfile.
    Sendfile,
    /// Pages of its own memory, by vmsplice into a pipe and splice out of it.
    Vmsplice,
}

const BLOCK: usize = 4096;
const ROUNDS: u64 = 5;
/// How long the receiver waits for a block.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(way: Rewrite) -> Result<Notice, Error> {
    let listener = within(SERVER.0, || TcpListener::bind((SERVER.1, PORT)))?.map_err(failed("listen on tcp"))?;
    let client = within(CLIENT.0, || TcpStream::connect((SERVER.1, PORT)))?.map_err(failed("connect"))?;
    client.set_nodelay(true).map_err(failed("set TCP_NODELAY"))?;
    let (mut server, _) = listener.accept().map_err(failed("accept a connection"))?;
    server.set_read_timeout(Some(PATIENCE)).map_err(failed("set a timeout"))?;
    let file = File::from(memfd_create("skbtrace-lab", MFdFlags::MFD_CLOEXEC).map_err(failed("make a file"))?);
    let mut memory = vec![0; BLOCK];
    let mut notice = Notice::default();
    let (mut received, mut sent) = (0, 0);
    for round in 0..ROUNDS {
        let before = vec![b'a' + round as u8; BLOCK];
        let after = vec![b'A' + round as u8; BLOCK];
        match way {
            Rewrite::Sendfile => {
                file.write_all_at(&before, 0).map_err(failed("write the file"))?;
                lend_file(&client, &file)?;
                file.write_all_at(&after, 0).map_err(failed("write the file"))?;
            }
            Rewrite::Vmsplice => {
                memory.copy_from_slice(&before);
                lend_memory(&client, &memory)?;
                memory.copy_from_slice(&after);
            }
        }
        sent += 1;
        let mut got = vec![0; BLOCK];
        if server.read_exact(&mut got).is_err() {
            break;
        }
        received += 1;
        notice.corrupt += u64::from(got != before);
    }
    // Pages that are still lent must not be freed for somebody else before they are done with.
    drop(client);
    let _ = server.write(&[]);
    notice.lost = received < ROUNDS;
    let corrupt = notice.corrupt;
    notice.lines = vec![format!("tcp {sent} blocks sent, {received} received, {corrupt} not as they were when sent")];
    Ok(notice)
}

fn lend_file(socket: &TcpStream, file: &File) -> Result<(), Error> {
    let (mut offset, mut left) = (0, BLOCK);
    while left > 0 {
        let length = sendfile(socket, file, Some(&mut offset), left).map_err(failed("send a file"))?;
        left = left.saturating_sub(length.max(1));
    }
    Ok(())
}

fn lend_memory(socket: &TcpStream, memory: &[u8]) -> Result<(), Error> {
    let (reader, writer) = std::io::pipe().map_err(failed("make a pipe"))?;
    let mut given = 0;
    while given < memory.len() {
        let part = [IoSlice::new(&memory[given..])];
        let length = vmsplice(&writer, &part, SpliceFFlags::empty()).map_err(failed("lend memory to a pipe"))?;
        let mut left = length;
        while left > 0 {
            let moved = splice(&reader, None, socket, None, left, SpliceFFlags::empty());
            left = left.saturating_sub(moved.map_err(failed("splice a pipe into a socket"))?.max(1));
        }
        given += length.max(1);
    }
    Ok(())
}
