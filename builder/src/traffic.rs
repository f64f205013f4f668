//! What becomes of the HTTP of commands and downloads: it goes out, is recorded, or is replayed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use network::Uplink;
use recorder::{ContentDirectory, Exchange, Recorder};
use serde::{Deserialize, Serialize};

use crate::error::ErrorContext;
use crate::secret::values;
use crate::{Request, Result};

/// What becomes of what commands and downloads ask over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// It goes out.
    #[default]
    Open,
    /// It goes through a proxy that keeps every answer; commands have no other network.
    Record {
        /// The directory for the content of answers.
        contents: PathBuf,
    },
    /// It is answered from a recording; nothing goes out.
    Replay {
        /// The directory with the content of answers.
        contents: PathBuf,
        /// What was answered.
        exchanges: Vec<Exchange>,
    },
}

impl Traffic {
    /// Whether commands run with what they get recorded now.
    pub(crate) fn is_recorded(&self) -> bool {
        matches!(self, Traffic::Record { .. })
    }

    /// Whether nothing goes out.
    pub(crate) fn is_replayed(&self) -> bool {
        matches!(self, Traffic::Replay { .. })
    }
}

/// What is between the steps of a request and the network, if anything is.
pub(crate) fn recorder(request: &Request) -> Result<Option<Arc<Recorder>>> {
    let contents = match &request.traffic {
        Traffic::Open => return Ok(None),
        Traffic::Record { contents } | Traffic::Replay { contents, .. } => contents,
    };
    let hosts = request.run.base.network.hosts.clone();
    let machine = hosts.iter().any(|(_, address)| is_machine(*address));
    let options = recorder::RecorderOptions {
        contents: ContentDirectory::new(contents.clone()),
        secrets: values(request),
        machine: machine.then_some(Uplink::MACHINE),
        hosts,
        reaches: Uplink::reaches,
        proxies: request.proxy.clone(),
    };
    let made = match &request.traffic {
        Traffic::Replay { exchanges, .. } => Recorder::replay(options, exchanges.clone()),
        _ => Recorder::record(options),
    };
    made.during("preparing the recording").map(Some)
}

fn is_machine(address: IpAddr) -> bool {
    address == Uplink::MACHINE
}
