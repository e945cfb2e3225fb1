//! A netlink socket of the calling thread's network namespace.
//!
//! Must never wait: the kernel's answers are queued when `send` returns, so reading stops at the first "would block".

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::{libc, setsockopt_impl, sockopt_impl};

use super::message::Batch;

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nf_tables.
    Netfilter,
}

/// What the kernel refused.
#[derive(Debug, Clone, thiserror::Error)]
pub struct NetlinkError {
    /// What was asked, in words.
    pub purpose: String,
    /// The kernel's answer.
    pub errno: Errno,
    /// The kernel's own explanation, where it gives one.
    pub detail: Option<String>,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.purpose, self.errno.desc())?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

/// An open netlink socket. It stays in the namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let failed =
            |errno| NetlinkError { purpose: format!("open a netlink socket ({protocol:?})"), errno, detail: None };
        let number = match protocol {
            Protocol::Route => SockProtocol::NetlinkRoute,
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, number).map_err(failed)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(failed)?;
        // A large batch is one datagram; the default send buffer (208 KiB) holds about 1,500 rules. Failing to raise it only
        // lowers that bound, and the send then says so.
        let _ = setsockopt(&fd, sockopt::SndBuf, &(1 << 20));
        // Kernels without them go on giving numbers.
        let _ = setsockopt(&fd, ExplainRefusals, &true);
        let _ = setsockopt(&fd, ShortRefusals, &true);
        Ok(Self { fd })
    }

    /// Sends a batch; the first refusal is the error. Messages of `Protocol::Route` before it hold, those of
    /// `Protocol::Netfilter` are one transaction.
    pub fn send(&self, batch: &Batch) -> Result<(), NetlinkError> {
        self.exchange(batch, true)
    }

    /// As [`send`](Self::send), for nf_tables batches: their end marker must not be acknowledged.
    pub fn transact(&self, batch: &Batch) -> Result<(), NetlinkError> {
        self.exchange(batch, false)
    }

    fn exchange(&self, batch: &Batch, acknowledge: bool) -> Result<(), NetlinkError> {
        if batch.is_empty() {
            return Ok(());
        }
        let failed = |errno| NetlinkError {
            purpose: format!("send a netlink request ({})", batch.purpose(1)),
            errno,
            detail: None,
        };
        sendto(self.fd.as_raw_fd(), &batch.finish(acknowledge), &NetlinkAddr::new(0, 0), MsgFlags::empty())
            .map_err(failed)?;
        let mut first = None;
        let mut buffer = vec![0u8; 32 * 1024];
        loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(length) => {
                    if first.is_none() {
                        first = first_error(&buffer[..length], batch);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        first.map_or(Ok(()), Err)
    }
}

sockopt_impl!(
    /// The kernel says in words why it refuses.
    ExplainRefusals, SetOnly, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool
);
sockopt_impl!(
    /// It does not send the refused message back with it.
    ShortRefusals, SetOnly, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool
);

const NLMSG_ERROR: u16 = 2;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

fn first_error(mut bytes: &[u8], batch: &Batch) -> Option<NetlinkError> {
    while let Some(length) = read_u32(bytes, 0) {
        let length = length as usize;
        if length < 16 || length > bytes.len() {
            return None;
        }
        let message = &bytes[..length];
        let kind = read_u16(message, 4)?;
        let flags = read_u16(message, 6)?;
        if kind == NLMSG_ERROR {
            let code = read_u32(message, 16)? as i32;
            if code != 0 {
                let sequence = read_u32(message, 8)?;
                return Some(NetlinkError {
                    purpose: batch.purpose(sequence).to_owned(),
                    errno: Errno::from_raw(-code),
                    detail: if flags & NLM_F_ACK_TLVS != 0 { detail(message, flags) } else { None },
                });
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// The text attribute behind the copy of the refused message.
fn detail(message: &[u8], flags: u16) -> Option<String> {
    let echoed = if flags & NLM_F_CAPPED != 0 { 16 } else { (read_u32(message, 20)? as usize).next_multiple_of(4) };
    let mut rest = message.get(20 + echoed..)?;
    while let (Some(length), Some(kind)) = (read_u16(rest, 0), read_u16(rest, 2)) {
        let length = length as usize;
        if length < 4 || length > rest.len() {
            return None;
        }
        if kind == NLMSGERR_ATTR_MSG {
            return Some(String::from_utf8_lossy(&rest[4..length]).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
