//! What may stand behind `--metrics`: `PORT` or `:PORT` for this machine alone, or an address that is spelled out.
//! [`bind`] listens there, before anything is measured.

use crate::{Error, Result};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

const FORMS: &str =
    "give a port (9464), or an IP address and a port (127.0.0.1:9464, [::1]:9464); port 0 takes a free one";

/// The address that is meant; a port alone is one of 127.0.0.1. Names of hosts other than `localhost` are not looked up.
pub fn parse(text: &str) -> Result<SocketAddr> {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let port_of = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let alone = text.strip_prefix(':').or_else(|| text.strip_prefix("localhost:")).unwrap_or(text);
    let address = port_of(alone).map(|port| SocketAddr::new(local, port)).or_else(|| text.parse().ok());
    address.ok_or_else(|| Error::input(format!("--metrics `{text}` is no address to listen on"), FORMS))
}

/// Listens at the address; an error says why that is not possible.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let cure = match error.kind() {
            ErrorKind::AddrInUse => "another program listens there: choose another port, or 0 for a free one",
            ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege: choose a higher one, or 0 for a free one"
            }
            ErrorKind::AddrNotAvailable => {
                "no interface of this machine has that address: give one that `ip address` shows"
            }
            _ => FORMS,
        };
        Error::machine(format!("cannot serve metrics at {address}: {error}"), cure)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_this_machines_and_an_address_is_what_it_says() {
        for (text, meant) in [
            ("9464", "127.0.0.1:9464"),
            (":9464", "127.0.0.1:9464"),
            ("0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("10.1.2.3:1", "10.1.2.3:1"),
            ("[::1]:9464", "[::1]:9464"),
            ("[::]:9464", "[::]:9464"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), meant, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_in_one_line_with_the_forms() {
        for text in ["", ":", "x", "65536", "-1", "+1", "1.2.3.4", "::1:9464", "node7:9464", "127.0.0.1:99999", "9464 "]
        {
            let error = parse(text).unwrap_err();
            let line = error.to_string();
            assert!(line.contains("9464") && !line.contains('\n') && error.exit_code() == 2, "{text}: {line}");
        }
    }

    #[test]
    fn an_address_in_use_or_of_another_machine_is_refused() {
        let first = bind(parse("0").unwrap()).unwrap();
        let taken = bind(first.local_addr().unwrap()).unwrap_err().to_string();
        assert!(taken.contains("choose another port"), "{taken}");
        // A documentation network, which no interface has.
        let foreign = bind(parse("192.0.2.1:0").unwrap()).unwrap_err().to_string();
        assert!(foreign.contains("192.0.2.1:0") && foreign.contains("no interface"), "{foreign}");
    }
}
