//! Names the class of a failure to connect. Never retries.

use std::io;

use rustix::io::Errno;
use sonde_proto::model::error_class::ErrorClass;

/// Errors that this machine is to blame for, not the target.
const OWN_FAULTS: [Errno; 7] =
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::ACCESS, Errno::PERM];

const UNREACHABLE: [Errno; 4] = [Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::HOSTDOWN, Errno::NETDOWN];

/// The class of an error of `connect`, or of a datagram socket that is connected.
pub(crate) fn connect_class(error: &io::Error) -> ErrorClass {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return ErrorClass::ConnectRefused;
    }
    let Some(errno) = Errno::from_io_error(error) else {
        return ErrorClass::ConnectError;
    };
    if errno == Errno::TIMEDOUT {
        ErrorClass::ConnectTimeout
    } else if UNREACHABLE.contains(&errno) {
        ErrorClass::ConnectUnreachable
    } else if OWN_FAULTS.contains(&errno) {
        ErrorClass::ProbeError
    } else {
        ErrorClass::ConnectError
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_connect_has_a_class() {
        let check = |errno: Errno, class| {
            assert_eq!(connect_class(&io::Error::from(errno)), class, "{errno}");
        };
        check(Errno::CONNREFUSED, ErrorClass::ConnectRefused);
        check(Errno::TIMEDOUT, ErrorClass::ConnectTimeout);
        check(Errno::HOSTUNREACH, ErrorClass::ConnectUnreachable);
        check(Errno::NETUNREACH, ErrorClass::ConnectUnreachable);
        check(Errno::CONNRESET, ErrorClass::ConnectError);
        check(Errno::MFILE, ErrorClass::ProbeError);
        check(Errno::ADDRNOTAVAIL, ErrorClass::ProbeError);
        assert_eq!(connect_class(&io::Error::other("no number")), ErrorClass::ConnectError);
    }
}
